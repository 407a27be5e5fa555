"""What a swept value is drawn from: W&B's distributions by their names, over a `Chooser`: a random generator or Optuna."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saelight.errors import UserError, did_you_mean

_KINDS = {
    "uniform": {"min", "max"},
    "int_uniform": {"min", "max"},
    "q_uniform": {"min", "max", "q"},
    "log_uniform_values": {"min", "max"},
    "q_log_uniform_values": {"min", "max", "q"},
}
_LISTED = ("categorical", "constant")


class Chooser(Protocol):
    """Where values come from."""

    def choice(self, key: str, n: int) -> int:
        """One of n alternatives, by its number."""

    def number(self, key: str, low: float, high: float, *, log: bool, step: float | None, whole: bool) -> float:
        """A number in [low, high]."""


@dataclass(frozen=True)
class Distribution:
    """A range, and how it is drawn from."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def draw(self, key: str, chooser: Chooser) -> float:
        """A value of `key`."""
        return chooser.number(key, self.low, self.high, log=self.log, step=self.step, whole=self.whole)


def read_distribution(spec: dict[str, Any], where: str) -> Distribution | None:
    """The distribution that a parameter describes; None when it lists its values. Raises `UserError`."""
    kind = spec.get("distribution")
    if "value" in spec or "values" in spec or kind in _LISTED:
        if kind not in (None, *_LISTED):
            raise UserError(f"{where}: distribution {kind!r} takes min and max, not value or values")
        if "probabilities" in spec:
            raise UserError(f"{where}: probabilities are not supported: list a value more often by a case of its own")
        if "value" not in spec and "values" not in spec:
            raise UserError(f"{where}: distribution {kind!r} needs `values`")
        return None
    if kind is None:
        bounds = (spec.get("min"), spec.get("max"))
        kind = "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"
    if kind not in _KINDS:
        known = (*_KINDS, *_LISTED)
        raise UserError(f"{where}: unknown distribution {kind!r}{did_you_mean(str(kind), known) or f'; known: {known}'}")
    wanted = _KINDS[kind]
    for key in spec:
        if key not in wanted | {"distribution"}:
            raise UserError(f"{where}: unknown key {key!r}{did_you_mean(key, wanted | {'value', 'values'})}")
    values = [spec.get(key, 1 if key == "q" else None) for key in ("min", "max", "q")]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        raise UserError(f"{where}: write {{values: [...]}} or {{min: ..., max: ...}} in numbers, got {spec}")
    low, high, q = numbers
    log, whole = "log" in kind, kind == "int_uniform"
    if not low < high or (log and low <= 0) or (whole and not (isinstance(low, int) and isinstance(high, int))):
        rule = "0 < min < max" if log else "whole numbers, min < max" if whole else "min < max"
        raise UserError(f"{where}: {kind} needs {rule}, got min {low} and max {high}")
    return Distribution(low, high, log, q if "q" in wanted else 1 if whole else None, whole)


class RandomChooser:
    """Independent uniform draws from one seed."""

    def __init__(self, seed: Sequence[int]) -> None:
        import numpy as np

        self._rng = np.random.default_rng(seed)

    def choice(self, key: str, n: int) -> int:
        return int(self._rng.integers(n))

    def number(self, key: str, low: float, high: float, *, log: bool, step: float | None, whole: bool) -> float:
        if whole:
            return int(self._rng.integers(int(low), int(high), endpoint=True))
        value = math.exp(self._rng.uniform(math.log(low), math.log(high))) if log else self._rng.uniform(low, high)
        if step:
            # Decimal steps, without the tail of binary fractions.
            return min(max(round(round(value / step) * step, 12), low), high)
        return float(f"{value:.6g}")
