"""FVU against L0, compared at the same measured L0: log FVU between neighbouring points, straight in log L0."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.quality.runs import Measured

CLOSE = 0.005
"""Relative difference of L0 that needs no correction."""
REACH = 1.2
"""How far beyond the outermost points a line through the last two is believed, as a factor of L0."""
WIDE = 3.0
"""How far apart two points may lie, as a factor of L0, for a value between them to be called measured."""


class Value(NamedTuple):
    """FVU at an L0."""

    fvu: float
    exact: bool
    """Whether it was measured there or between neighbours; not when beyond them, between distant ones or near one alone."""


def at(points: Iterable[Measured], l0: float) -> Value | None:
    """FVU at `l0` on the front through `points`; None where they say nothing of it."""
    kept = sorted((p for p in points if p.fvu > 0 and math.isfinite(p.fvu) and p.l0 > 0), key=lambda p: p.l0)
    near = [p for p in kept if abs(p.l0 / l0 - 1) <= CLOSE]
    if near:
        return Value(min(p.fvu for p in near), True)
    below, above = [p for p in kept if p.l0 < l0], [p for p in kept if p.l0 > l0]
    if below and above:
        return Value(_line(below[-1], above[0], l0), above[0].l0 / below[-1].l0 <= WIDE)
    outer = below[-1:] or above[:1]
    if not outer or not 1 / REACH <= outer[0].l0 / l0 <= REACH:
        return None
    pair = below[-2:] if below else above[:2]
    if len(pair) == 2 and pair[0].l0 < pair[1].l0 / 1.1:
        return Value(_line(pair[0], pair[1], l0), False)
    return Value(outer[0].fvu, False)


def _line(a: Measured, b: Measured, l0: float) -> float:
    share = math.log(l0 / a.l0) / math.log(b.l0 / a.l0)
    return math.exp((1 - share) * math.log(a.fvu) + share * math.log(b.fvu))


def coefficient_for(l0: float, tried: Sequence[tuple[float, float]], first: float) -> float:
    """The penalty's weight to try next, from those tried and the L0 that each gave: on the line through the two nearest.

    log L0 is taken to fall as log λ rises. A step beyond what was tried is a factor of 8 at most.
    """
    known = sorted((c, found) for c, found in tried if found > 0)
    if not known:
        return first
    # No latent left: far too much.
    if len(known) == 1 or known[0][1] <= known[-1][1]:
        c, found = min(known, key=lambda pair: abs(math.log(pair[1] / l0)))
        guess = c * found / l0
    else:
        after = next((i for i, (_, found) in enumerate(known) if found <= l0), len(known) - 1)
        (c1, l1), (c2, l2) = known[max(after, 1) - 1], known[max(after, 1)]
        slope = math.log(l2 / l1) / math.log(c2 / c1) if c1 != c2 and l1 > l2 else -1.0
        guess = math.exp(math.log(c1) + math.log(l0 / l1) / slope)
    return min(max(guess, known[0][0] / 8), known[-1][0] * 8)
