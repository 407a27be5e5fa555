"""The base of saelight's callbacks and of users' own: Lightning's hooks, and those of a bank."""

from typing import Any, ClassVar

import lightning as L

from saelight.errors import UserError, did_you_mean


class SAECallback(L.Callback):
    """A `lightning.Callback` that also hears of each SAE of a bank.

    A method `on_…` that is no hook of either is refused when the class is defined: it would never be called.
    """

    affects_weights: ClassVar[bool] = True
    """Whether the callback can change what is trained, or when it ends. A sweep trains a point again when such a callback
    comes, goes or is set otherwise; a class that only looks or writes says False."""

    measures: ClassVar[tuple[str, ...]] = ()
    """Names of metrics that the callback adds to each SAE's in every validation, through `bank.measured`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and not any(hasattr(base, name) for base in cls.__bases__):
                hooks = [hook for hook in dir(SAECallback) if hook.startswith("on_")]
                raise UserError(f"{cls.__name__}: no hook is called {name!r}{did_you_mean(name, hooks)}")

    def on_record(self, trainer: L.Trainer, bank: L.LightningModule, values: dict[str, float]) -> None:
        """A training step was logged: every `trainer.log_every_n_steps` steps, on every rank.

        Args:
            values: By `<sae>/train/<metric>`, averaged over ranks, and `tokens` seen so far.
        """

    def on_quarantine(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        """SAE `name` has met a non-finite loss or gradient and trains no more. On every rank.

        Args:
            reason: What was not finite and when, such as `non-finite loss at step 12`.
        """

    def on_retire(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        """SAE `name` was ended early by `bank.retire`. On every rank.

        Args:
            reason: As given to `bank.retire`; `bank.outcome(name)` has the state too.
        """


BANK_HOOKS = tuple(name for name in vars(SAECallback) if name.startswith("on_"))
"""The hooks that a bank calls, beside Lightning's."""
