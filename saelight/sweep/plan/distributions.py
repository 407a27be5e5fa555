"""What a swept value is drawn from: W&B's distributions, all of them, by their names and as its sweep configuration defines
them (docs.wandb.ai, "Sweep configuration options"), over a `Chooser`: a random generator or Optuna.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Any, Protocol

from saelight.errors import UserError, did_you_mean

_RANGE: dict[str, float | None] = {"min": None, "max": None}
_NORMAL: dict[str, float | None] = {"mu": 0.0, "sigma": 1.0}
_BETA: dict[str, float | None] = {"a": 1.0, "b": 1.0}
_QUANTISED = {
    "uniform": _RANGE,
    "log_uniform": _RANGE,
    "log_uniform_values": _RANGE,
    "normal": _NORMAL,
    "log_normal": _NORMAL,
    "beta": _BETA,
}
"""Distributions that have a form `q_…`, which rounds to multiples of q."""
_KINDS: dict[str, dict[str, float | None]] = {
    **_QUANTISED,
    **{f"q_{kind}": arguments | {"q": 1} for kind, arguments in _QUANTISED.items()},
    "int_uniform": _RANGE,
    "inv_log_uniform": _RANGE,
    "inv_log_uniform_values": _RANGE,
}
"""By distribution: its arguments and their defaults, None where there is none."""
_LISTED = {"categorical": "values", "categorical_w_probabilities": "values", "constant": "value"}
_LARGEST_EXPONENT = 700.0
_EDGE = 1e-12  # a quantile of 0 or 1 may be at infinity


class Chooser(Protocol):
    """Where values come from."""

    def choice(self, key: str, n: int) -> int:
        """One of n alternatives, by its number."""

    def number(self, key: str, low: float, high: float, *, log: bool, whole: bool) -> float:
        """A number in [low, high], uniform or log-uniform."""

    def quantile(self, key: str) -> float:
        """A share in [0, 1], uniform: where in its distribution a value lies."""


@dataclass(frozen=True)
class Distribution:
    """A distribution and its arguments."""

    kind: str
    """As W&B calls it."""
    arguments: dict[str, float]

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers by definition."""
        return self.kind == "int_uniform"

    def draw(self, key: str, chooser: Chooser) -> float:
        """A value of `key`."""
        kind, of, q = self.kind.removeprefix("q_"), self.arguments, self.arguments.get("q")
        if q is not None:
            value = self._at(kind, chooser.quantile(key))
            # Decimal steps, without the tail of binary fractions.
            return round(value / q) * q if isinstance(q, int) else float(f"{round(value / q) * q:.12g}")
        if "min" not in of:
            return float(f"{self._at(kind, chooser.quantile(key)):.6g}")
        low, high = of["min"], of["max"]
        if kind == "log_uniform":
            low, high = math.exp(low), math.exp(high)
        elif kind == "inv_log_uniform":
            # log(1/X) is what is uniform.
            low, high = math.exp(-high), math.exp(-low)
        return chooser.number(key, low, high, log="log" in kind, whole=self.whole)

    def _at(self, kind: str, quantile: float) -> float:
        """The value that the share `quantile` of all values lies below."""
        of, inner = self.arguments, min(max(quantile, _EDGE), 1 - _EDGE)
        if kind in ("normal", "log_normal"):
            # A NormalDist of sigma 0 has no quantiles.
            value = of["mu"] + of["sigma"] * NormalDist().inv_cdf(inner)
            return value if kind == "normal" else math.exp(min(value, _LARGEST_EXPONENT))
        if kind == "beta":
            from scipy.special import betaincinv

            return float(betaincinv(of["a"], of["b"], inner))
        low, high = of["min"], of["max"]
        if kind == "log_uniform_values":
            low, high = math.log(low), math.log(high)
        value = low + quantile * (high - low)
        return value if kind == "uniform" else math.exp(value)


def read_distribution(spec: dict[str, Any], where: str) -> Distribution | None:
    """The distribution that a parameter describes; None when it lists its values. Raises `UserError`."""
    kind = spec.get("distribution")
    if not (kind is None or isinstance(kind, str)):
        raise UserError(f"{where}: expected a distribution's name, got {kind!r}; known: {', '.join((*_KINDS, *_LISTED))}")
    if "value" in spec or "values" in spec or kind in _LISTED:
        _check_listed(spec, kind, where)
        return None
    if kind is None:
        bounds = (spec.get("min"), spec.get("max"))
        kind = "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"
    if kind not in _KINDS:
        known = (*_KINDS, *_LISTED)
        near = did_you_mean(str(kind), known) or f"; known: {', '.join(known)}"
        raise UserError(f"{where}: unknown distribution {kind!r}{near}")
    wanted = _KINDS[kind]
    for key in spec:
        if key not in wanted.keys() | {"distribution"}:
            near = did_you_mean(str(key), {*wanted, "value", "values"}) or f"; {kind} takes {', '.join(wanted)}"
            raise UserError(f"{where}: unknown key {key!r}{near}")
    arguments = {key: spec.get(key, default) for key, default in wanted.items()}
    if not all(_is_number(value) for value in arguments.values()):
        raise UserError(f"{where}: write {{values: [...]}}, or numbers for {kind}'s {', '.join(wanted)}, got {spec}")
    found = Distribution(kind, {key: value for key, value in arguments.items() if value is not None})
    if rule := _broken_rule(found):
        given = " and ".join(f"{key} {value}" for key, value in found.arguments.items())
        raise UserError(f"{where}: {kind} needs {rule}, got {given}")
    return found


def read_probabilities(spec: dict[str, Any], where: str) -> tuple[float, ...] | None:
    """How likely each of a parameter's `values` is; None where all are alike. Raises `UserError`."""
    given, values = spec.get("probabilities"), spec.get("values")
    if given is None or not isinstance(values, list):
        return None
    if not isinstance(given, list) or not all(_is_number(p) and p >= 0 for p in given):
        raise UserError(f"{where}: probabilities must be a list of numbers of at least 0, got {given!r}")
    if len(given) != len(values):
        raise UserError(f"{where}: {len(values)} values and {len(given)} probabilities: give one for each value")
    if abs(sum(given) - 1) > 1e-3:
        raise UserError(f"{where}: probabilities add up to 1, these to {sum(given):g}")
    return tuple(given)


def pick(key: str, n: int, probabilities: Sequence[float] | None, chooser: Chooser) -> int:
    """One of n alternatives, by its number."""
    if probabilities is None:
        return chooser.choice(key, n) if n > 1 else 0
    quantile = chooser.quantile(key) * sum(probabilities)
    possible = [i for i in range(n) if probabilities[i] > 0]
    return next((i for i, total in enumerate(accumulate(probabilities)) if quantile < total), possible[-1])


def _check_listed(spec: dict[str, Any], kind: Any, where: str) -> None:
    if kind is not None and kind not in _LISTED:
        takes = f"takes {', '.join(_KINDS[kind])}, not value or values" if kind in _KINDS else "is unknown beside values"
        raise UserError(f"{where}: distribution {kind!r} {takes}")
    wanted = _LISTED[kind] if kind else "value" if "value" in spec else "values"
    if wanted not in spec:
        raise UserError(f"{where}: distribution {kind!r} needs `{wanted}`")
    if "probabilities" in spec and wanted == "value":
        raise UserError(f"{where}: probabilities go with `values`, a list of what is likely and unlikely")
    if kind == "categorical_w_probabilities" and "probabilities" not in spec:
        raise UserError(f"{where}: distribution {kind!r} needs `probabilities`, one for each value")


def _broken_rule(found: Distribution) -> str | None:
    """What a distribution's arguments would have to be and are not."""
    kind, of = found.kind, found.arguments
    if of.get("q", 1) <= 0:
        return "q above 0"
    if "sigma" in of:
        return None if of["sigma"] >= 0 else "sigma of at least 0"
    if "a" in of:
        return None if min(of["a"], of["b"]) > 0 else "a and b above 0"
    low, high = of["min"], of["max"]
    if found.whole and not (isinstance(low, int) and isinstance(high, int)):
        return "whole numbers, min < max"
    if kind.endswith("log_uniform_values"):
        return None if 0 < low < high else "0 < min < max"
    if "log_uniform" in kind and max(abs(low), abs(high)) > _LARGEST_EXPONENT:
        return f"logarithms (min and max within ±{_LARGEST_EXPONENT:g}; {kind}_values takes the values themselves)"
    return None if low < high else "min < max"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class RandomChooser:
    """Independent uniform draws from one seed."""

    def __init__(self, seed: Sequence[int]) -> None:
        import numpy as np

        self._rng = np.random.default_rng(seed)

    def choice(self, key: str, n: int) -> int:
        return int(self._rng.integers(n))

    def number(self, key: str, low: float, high: float, *, log: bool, whole: bool) -> float:
        if whole:
            return int(self._rng.integers(int(low), int(high), endpoint=True))
        value = math.exp(self._rng.uniform(math.log(low), math.log(high))) if log else self._rng.uniform(low, high)
        return min(max(float(f"{value:.6g}"), low), high)

    def quantile(self, key: str) -> float:
        return float(self._rng.random())
