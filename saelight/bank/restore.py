"""A bank built again from its checkpoint, whose hyper-parameters are plain data."""

from typing import Any, Self

import lightning as L


class Restorable(L.LightningModule):
    """A module that checkpoints name no code for."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """The module of a checkpoint; arguments are Lightning's. A variant of your own must be imported before.

        Raises:
            UserError: for an SAE whose class is not imported.
        """
        # A checkpoint may ask for LightningCLI's way to build a module, which imports whatever class it names.
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs, _instantiator=None)
