"""Learning-rate and sparsity schedules: pure functions of the optimizer step, and the units of time they are written in.

A schedule is a small dataclass in the config; with the horizon (the length of training) known it turns into a function
`step -> factor`, without state, so that a resumed run needs nothing but its step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from saelight.errors import UserError
from saelight.ranges import Duration, Range, check_fields

Time = int | float | dict[str, float]
"""A length of time: int = optimizer steps, float <= 1 = fraction of training, {epochs: n} or {tokens: n}."""


class Horizon(NamedTuple):
    """The length of training, frozen when it starts and kept in its checkpoints."""

    steps: int
    """Optimizer steps in the whole of training."""
    steps_per_epoch: int
    """Optimizer steps in one epoch."""
    tokens_per_step: float
    """Tokens per optimizer step, over all ranks and accumulated batches; where some accumulate fewer, on average."""

    @property
    def tokens(self) -> int:
        """In the whole of training."""
        return round(self.steps * self.tokens_per_step)

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
        steps_per_epoch = None if math.isinf(batches) else math.ceil(batches / accumulated)
        limits: list[int] = []
        if steps_per_epoch is not None and max_epochs is not None and max_epochs != -1:
            limits.append(int(batches) * max_epochs)
        if max_steps != -1:
            epochs, rest = (0, max_steps) if steps_per_epoch is None else divmod(max_steps, steps_per_epoch)
            limits.append((int(batches) * epochs if epochs else 0) + int(min(rest * accumulated, batches)))
        if max_tokens is not None:
            limits.append(math.ceil(max_tokens / tokens_per_batch))
        if not limits:
            return None
        steps = steps_of(min(limits), batches, accumulated)
        tokens = min(limits) * tokens_per_batch
        tokens_per_step = tokens // max(1, steps) if tokens % max(1, steps) == 0 else tokens / steps
        return cls(steps, steps_per_epoch or steps, tokens_per_step)


def steps_of(batches: int, per_epoch: float, accumulated: int) -> int:
    """Optimizer steps that `batches` make: the last ones of an epoch, and of all, make one even where they are fewer than
    `accumulated`.

    Args:
        per_epoch: Batches of an epoch, infinite where epochs have no end.
    """
    epochs, rest = (0, batches) if math.isinf(per_epoch) else divmod(batches, int(per_epoch))
    return (epochs * math.ceil(per_epoch / accumulated) if epochs else 0) + math.ceil(rest / accumulated)


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
