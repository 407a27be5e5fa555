"""How many batches a fit takes, and which of them an optimizer step is the mean of."""

import math
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from saelight.bank.trainer_attributes import undeclared
from saelight.errors import UserError
from saelight.schedules import Horizon, steps_of


class FitLength(NamedTuple):
    """The batches of a fit, on each process."""

    batches: int
    """In all."""
    per_epoch: float
    """Infinite where epochs have no end."""
    accumulated: int
    """Batches of an optimizer step."""

    def steps(self, batches: int) -> int | None:
        """The optimizer steps after so many batches; None where the last one is not complete."""
        steps = self.all_steps(batches)
        begun = 0 < batches < self.batches and steps == self.all_steps(batches + 1)
        return None if begun else steps

    def all_steps(self, batches: int) -> int:
        """The optimizer steps after so many batches, with one that is begun."""
        return steps_of(batches, self.per_epoch, self.accumulated)

    def epochs(self, batches: int) -> tuple[int, int]:
        """The whole epochs in so many batches, and the batches of the one begun."""
        return (0, batches) if math.isinf(self.per_epoch) else divmod(batches, int(self.per_epoch))

    def limit_epoch(self, trainer: L.Trainer, batches: int) -> None:
        """Let the epoch in which `batches` end be over where the fit is: Lightning then takes the last step, even if fewer
        batches are accumulated in it than in the others."""
        _, inside = self.epochs(batches)
        left = self.batches - (batches - inside)
        trainer.fit_loop.max_batches = min(self.per_epoch, left) if left > 0 else self.per_epoch

    def share(self, trainer: L.Trainer, batch_idx: int) -> float:
        """What a batch's loss is to be multiplied by, since Lightning divides by `accumulated` also where fewer batches are
        left in the epoch: the gradient of a step is the mean over its batches."""
        first = batch_idx - batch_idx % self.accumulated
        return self.accumulated / min(self.accumulated, trainer.num_training_batches - first)


def measure(trainer: L.Trainer, max_tokens: int | None) -> tuple[Horizon, FitLength]:
    """The fit about to begin: it ends with the first of max_epochs, max_steps and max_tokens to be reached.

    Raises:
        UserError: It has no end, or steps of no fixed number of batches.
    """
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in undeclared(trainer).callbacks):
        raise UserError(
            "GradientAccumulationScheduler makes steps of unequal length, which no schedule can be planned for: set "
            "trainer.accumulate_grad_batches"
        )
    trainer.fit_loop.setup_data()
    batch_size = getattr(trainer.train_dataloader, "batch_size", None)
    if batch_size is None:
        raise UserError("the training loader has no batch_size; use a saelight data module or a torch DataLoader")
    limits: dict[str, Any] = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps, "max_tokens": max_tokens}
    tokens, accumulated = batch_size * trainer.world_size, trainer.accumulate_grad_batches
    horizon = Horizon.planned(trainer.num_training_batches, tokens, accumulated, **limits)
    if horizon is None:
        raise UserError("training has no end: set trainer.max_epochs, trainer.max_steps or model.max_tokens")
    if max_tokens is not None:
        # As a limit on steps, which Lightning's loops know how to meet.
        trainer.fit_loop.epoch_loop.max_steps = horizon.steps
    return horizon, FitLength(horizon.tokens // tokens, trainer.num_training_batches, accumulated)
