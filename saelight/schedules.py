"""Learning-rate and sparsity schedules: pure functions of the optimizer step, and the units of time they are written in.

A schedule is a small dataclass in the config; with the horizon (the length of training) known it turns into a function
`step -> factor`, without state, so that a resumed run needs nothing but its step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from saelight.errors import UserError
from saelight.ranges import Duration, Range, check_fields

if TYPE_CHECKING:
    import lightning as L

Time = int | float | dict[str, float]
"""A length of time: int = optimizer steps, float <= 1 = fraction of training, {epochs: n} or {tokens: n}."""


class Horizon(NamedTuple):
    """The length of training, frozen when it starts and kept in its checkpoints."""

    steps: int
    """Optimizer steps in the whole of training."""
    steps_per_epoch: int
    """Optimizer steps in one epoch."""
    tokens_per_step: int
    """Tokens per optimizer step, over all ranks and accumulated batches."""

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step

    @classmethod
    def planned(
        cls,
        batches: float,
        tokens_per_batch: int,
        accumulated: int,
        *,
        max_epochs: int | None,
        max_steps: int,
        max_tokens: int | None,
    ) -> "Horizon | None":
        """The horizon of a fit that ends with the first of these limits; None if there is none.

        Args:
            batches: Of an epoch, on each process; infinite where epochs have no end.
            tokens_per_batch: Over all processes.
            accumulated: Batches of an optimizer step.
            max_epochs: None and -1 for no limit; so is -1 as max_steps.
        """
        tokens_per_step = tokens_per_batch * accumulated
        # The last batches of an epoch make a step even when fewer than `accumulated` are left.
        steps_per_epoch = None if math.isinf(batches) else math.ceil(batches / accumulated)
        limits = []
        if steps_per_epoch is not None and max_epochs not in (None, -1):
            limits.append(steps_per_epoch * max_epochs)
        if max_steps != -1:
            limits.append(max_steps)
        if max_tokens is not None:
            limits.append(math.ceil(max_tokens / tokens_per_step))
        return cls(min(limits), steps_per_epoch or min(limits), tokens_per_step) if limits else None


def measure(trainer: "L.Trainer", max_tokens: int | None) -> Horizon:
    """The horizon of the fit about to begin: the first of max_epochs, max_steps and max_tokens to be reached."""
    trainer.fit_loop.setup_data()
    batch_size = getattr(trainer.train_dataloader, "batch_size", None)
    if batch_size is None:
        raise UserError("the training loader has no batch_size; use a saelight data module or a torch DataLoader")
    planned = Horizon.planned(
        trainer.num_training_batches,
        batch_size * trainer.world_size,
        trainer.accumulate_grad_batches,
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
        max_tokens=max_tokens,
    )
    if planned is None:
        raise UserError("training has no end: set trainer.max_epochs, trainer.max_steps or model.max_tokens")
    return planned


def limit_steps(trainer: "L.Trainer", horizon: Horizon, max_tokens: int | None) -> None:
    """Let the fit end with max_tokens: as a limit on steps, which Lightning's loops already know how to meet."""
    if max_tokens is not None:
        steps = math.ceil(max_tokens / horizon.tokens_per_step)
        limit = trainer.fit_loop.epoch_loop.max_steps
        trainer.fit_loop.epoch_loop.max_steps = steps if limit == -1 else min(limit, steps)


def in_steps(time: Time, horizon: Horizon) -> int:
    """`time` in optimizer steps, rounded to the nearest."""
    if isinstance(time, dict):
        ((unit, n),) = time.items()
        return round(n * horizon.steps_per_epoch if unit == "epochs" else n / horizon.tokens_per_step)
    return round(time * horizon.steps) if isinstance(time, float) else time


_DECAY = 0.2
"""The share of training that trapezoid decays over."""


@dataclass(kw_only=True)
class Schedule:
    """How the learning rate moves: a linear warm-up, then one of five shapes over the rest of training."""

    kind: Literal["trapezoid", "warm_restarts", "cosine", "linear", "constant"] = "trapezoid"
    """trapezoid: lr, then to eta_min on a line over the last `decay` of training (docs/quality.md: why it is the default).
    warm_restarts: cosine cycles from lr to eta_min, each T_mult times as long as the last (SGDR, arXiv 1608.03983, eq. 5).
    cosine: one such cycle. linear: lr to eta_min on a line. constant: lr."""
    decay: Annotated[Time | None, Duration()] = None
    """How long trapezoid takes from lr to eta_min, at the end of training. Default: the last fifth."""
    T_0: Annotated[Time | None, Duration(zero=False)] = None
    """Length of the first cycle of warm_restarts. Default: 1/7 of training, three whole cycles with T_mult 2."""
    T_mult: Annotated[int | None, Range(least=1, most=1000)] = None
    """Growth of warm_restarts' cycles. Default: 2."""
    eta_min: Annotated[float, Range(least=0, most=10)] = 0.0
    """The lowest learning rate, absolute, at most lr. Reached at the end of each cycle."""
    warmup: Annotated[Time, Duration(whole=False)] = 0.01
    """Linear warm-up from 0 to lr. Default: 1 % of training, enough for AdamW's second moments to settle."""

    def check(self) -> None:
        """Raise `UserError` for settings that make no sense, or that this kind would ignore."""
        check_fields(self, "schedule.")
        if self.kind != "warm_restarts" and (self.T_0 is not None or self.T_mult is not None):
            raise UserError(f"schedule: T_0 and T_mult belong to warm_restarts; drop them for kind {self.kind!r}")
        if self.kind != "trapezoid" and self.decay is not None:
            raise UserError(f"schedule: decay belongs to trapezoid; drop it for kind {self.kind!r}")

    def check_lowest(self, lr: float) -> None:
        """Raise `UserError` for an `eta_min` above the peak."""
        if self.eta_min > lr:
            raise UserError(f"schedule.eta_min must be at most lr = {lr:.3g}, got {self.eta_min}")

    def factor(self, lr: float, horizon: Horizon) -> Callable[[int], float]:
        """The function from optimizer step (0 first) to the factor on `lr`. Raises `UserError` for an `eta_min` above it."""
        self.check_lowest(lr)
        warmup, length = self._shape(horizon)
        T_0, T_mult = self._cycles(horizon)
        decay = min(length, in_steps(_DECAY if self.decay is None else self.decay, horizon))
        low = self.eta_min / lr

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            step -= warmup
            if self.kind == "trapezoid":
                # The last step is still taken with a share of lr: 1/(decay + 1).
                return low + (1 - low) * min(1.0, max(0.0, (length - step) / (decay + 1)))
            if self.kind == "warm_restarts":
                return low + (1 - low) * _cosine(_cycle_position(step, T_0, T_mult))
            if self.kind == "cosine":
                return low + (1 - low) * _cosine(min(1.0, step / length))
            if self.kind == "linear":
                return low + (1 - low) * (1 - min(1.0, step / length))
            return 1.0

        return factor

    def last_restart(self, horizon: Horizon) -> int:
        """The optimizer step at which the last cycle of warm_restarts begins; 0 for the other kinds."""
        warmup, length = self._shape(horizon)
        start, (cycle, T_mult) = 0, self._cycles(horizon)
        if self.kind != "warm_restarts":
            return 0
        while start + cycle < length:
            start, cycle = start + cycle, cycle * T_mult
        return warmup + start if start else 0

    def _shape(self, horizon: Horizon) -> tuple[int, int]:
        """Steps of warm-up, and steps after it."""
        warmup = min(in_steps(self.warmup, horizon), horizon.steps)
        return warmup, max(1, horizon.steps - warmup)

    def _cycles(self, horizon: Horizon) -> tuple[int, int]:
        """The first cycle's steps, and the growth of the cycles."""
        _, length = self._shape(horizon)
        # Three cycles, 1 + 2 + 4 = 7, fill what the warm-up leaves; rounded up, so that none restarts in the last steps.
        T_0 = max(1, -(-length // 7) if self.T_0 is None else in_steps(self.T_0, horizon))
        return T_0, 2 if self.T_mult is None else self.T_mult


def ramp(step: int, warmup: int) -> float:
    """The sparsity coefficient's factor: linear from 0 to 1 over `warmup` steps."""
    return min(1.0, step / warmup) if warmup else 1.0


def _cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def _cycle_position(step: int, T_0: int, T_mult: int) -> float:
    """Where `step` lies in its warm-restart cycle, in [0, 1)."""
    if T_mult == 1:
        return (step % T_0) / T_0
    # Cycle n starts at T_0 (T_mult^n - 1) / (T_mult - 1); integers, so that no rounding moves a restart.
    start, length = 0, T_0
    while step >= start + length:
        start, length = start + length, length * T_mult
    return (step - start) / length
