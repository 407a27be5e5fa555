"""The length of training, measured when a fit begins."""

import math

import lightning as L

from saelight.errors import UserError
from saelight.schedules import Horizon


def measure(trainer: L.Trainer, max_tokens: int | None) -> Horizon:
    """The horizon of the fit about to begin: the first of max_epochs, max_steps and max_tokens to be reached."""
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    batch_size = getattr(trainer.train_dataloader, "batch_size", None)
    if batch_size is None:
        raise UserError("the training loader has no batch_size; use a saelight data module or a torch DataLoader")
    tokens_per_step = batch_size * trainer.world_size * trainer.accumulate_grad_batches
    # The last batches of an epoch make a step even when fewer than accumulate_grad_batches are left.
    steps_per_epoch = None if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    limits = []
    if steps_per_epoch is not None and trainer.max_epochs not in (None, -1):
        limits.append(steps_per_epoch * trainer.max_epochs)
    if trainer.max_steps != -1:
        limits.append(trainer.max_steps)
    if max_tokens is not None:
        limits.append(math.ceil(max_tokens / tokens_per_step))
    if not limits:
        raise UserError("training has no end: set trainer.max_epochs, trainer.max_steps or model.max_tokens")
    return Horizon(min(limits), steps_per_epoch or min(limits), tokens_per_step)


def limit_steps(trainer: L.Trainer, horizon: Horizon, max_tokens: int | None) -> None:
    """Let the fit end with max_tokens: as a limit on steps, which Lightning's loops already know how to meet."""
    if max_tokens is not None:
        steps = math.ceil(max_tokens / horizon.tokens_per_step)
        limit = trainer.fit_loop.epoch_loop.max_steps
        trainer.fit_loop.epoch_loop.max_steps = steps if limit == -1 else min(limit, steps)
