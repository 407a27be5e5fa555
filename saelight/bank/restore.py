"""A bank built again from its checkpoint: of plain data, and in one line where that is not what a bank has."""

import contextlib
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Self

import lightning as L
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from saelight.bank.checkpoint_file import INSTEAD, ChecksummedIO, holds_code, opened
from saelight.bank.trainer_attributes import undeclared
from saelight.errors import UserError, one_line
from saelight.ops.normalisation import Kind
from saelight.saes.plain_data import as_type

_PARTS: dict[str, Any] = {
    "epoch": int,
    "global_step": int,
    "hyper_parameters": dict[str, Any],
    "state_dict": dict[str, Tensor],
    "saelight": {
        "horizon": tuple[int, int, float] | None,
        "tokens_seen": int,
        "position": {"batches": int, "validated": int | None, "validation_due": bool, "length": tuple[int, float, int]},
        "normalisation": {"kind": Kind, "scale": float, "mean": Tensor | None},
        "retired": dict[str, dict[str, str | None]],
    },
}
_PARTS_OF_TRAINING: dict[str, Any] = {
    "loops": {"fit_loop": dict[str, Any]},
    "callbacks": dict[str, Any],
    "optimizer_states": [{"state": dict[int, dict[str, Any]], "param_groups": list[dict[str, Any]]}],
    "lr_schedulers": [{"last_epoch": int, "base_lrs": list[float]}],
}
"""Those that one saved with weights_only=True lacks. A dict's keys have to be there, others may be; of a list all."""


class Restorable(L.LightningModule):
    """A module that checkpoints name no code for, and whose checkpoints are checked before they are believed."""

    def setup(self, stage: str) -> None:
        # Here, so that every trainer's files have it: saelight's, Lightning's, its ModelCheckpoint's.
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = ChecksummedIO()

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """The module of a checkpoint; arguments are Lightning's. A variant of your own must be imported before.

        Raises:
            UserError: for an SAE whose class is not imported, and for a file that is damaged or holds no bank.
        """
        with opened(checkpoint_path) as file, restoring(checkpoint_path, lambda error: True):
            # A checkpoint may ask for LightningCLI's way to build a module, which imports whatever class it names.
            try:
                return super().load_from_checkpoint(
                    file, map_location, hparams_file, strict, weights_only is not False, **kwargs, _instantiator=None
                )
            except pickle.UnpicklingError as error:
                raise holds_code(checkpoint_path, error) from None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise `UserError` for a part that is missing or of another type; what it says is for others to compare."""
        parts = dict(_PARTS)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            # Lightning begins where one of them is missing.
            parts |= _PARTS_OF_TRAINING
            if (data := type(undeclared(self.trainer).datamodule).__qualname__) in checkpoint:
                parts[data] = dict[str, Any]
        try:
            _check(checkpoint, parts, "the checkpoint")
        except UserError as error:
            raise UserError(f"{error}; {INSTEAD}") from None
        own = self.state_dict()
        for name, tensor in checkpoint["state_dict"].items():
            # Of other names and shapes torch will speak.
            if name in own and tensor.is_floating_point() != own[name].is_floating_point():
                raise UserError(f"the checkpoint's {name} is of {tensor.dtype}, not {own[name].dtype}; {INSTEAD}")


def _check(value: Any, parts: Any, name: str) -> None:
    """Raise `UserError` where a part is missing, or not of its type."""
    if isinstance(parts, dict):
        as_type(value, dict, name)
        if missing := [key for key in parts if key not in value]:
            raise UserError(f"{name} has no {', '.join(missing)}")
        for key, inner in parts.items():
            _check(value[key], inner, f"{name}: {key}")
    elif isinstance(parts, list):
        as_type(value, list, name)
        if len(value) != len(parts):
            raise UserError(f"{name}: expected {len(parts)}, got {len(value)}")
        for one, inner in zip(value, parts, strict=True):
            _check(one, inner, name)
    else:
        as_type(value, parts, name)


def _is_of_restoring(error: Exception) -> bool:
    """Whether an exception comes from where Lightning's trainer hands a checkpoint's parts to their owners."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.endswith(".checkpoint_connector") and function.lstrip("_").startswith(("restore", "resume")):
            return True
    return False


@contextlib.contextmanager
def restoring(path: Any, concerns: Callable[[Exception], bool] = _is_of_restoring) -> Iterator[None]:
    """Around what begins from the checkpoint at `path`, or from none: a part of it that cannot be restored is one line, a
    `UserError`. Errors that do not concern the restoring stay as they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if path is None or not concerns(error):
            raise
        raise UserError(f"{path} does not fit what is to be restored from it ({one_line(error)}): {INSTEAD}") from error
