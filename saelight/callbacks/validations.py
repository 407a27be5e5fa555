"""What callbacks that judge by validations have in common."""

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from saelight.bank.trainer_attributes import undeclared
from saelight.errors import UserError


def expect_validations(trainer: L.Trainer, judge: str) -> None:
    """Raise `UserError` if this fit has no validation by which `judge` could judge."""
    if not trainer.enable_validation or getattr(undeclared(trainer).datamodule, "n_val_rows", None) == 0:
        raise UserError(f"{judge} judges by validations, and there are none: hold out data, or drop {judge}")


def in_training(trainer: L.Trainer) -> bool:
    """Whether the validation that has just ended is one of training's own."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
