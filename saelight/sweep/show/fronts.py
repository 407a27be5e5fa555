"""Pareto fronts of L0 and FVU: which points nothing beats, and FVU at an L0 that lies between points.

log FVU is taken as straight in log L0 between neighbouring points, which is how fronts of SAEs look on such axes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CLOSE = 0.005
"""Relative difference of L0 that needs no correction."""
REACH = 1.2
"""How far beyond the outermost points a line through the last two is believed, as a factor of L0."""
WIDE = 3.0
"""How far apart two points may lie, as a factor of L0, for a value between them to be called measured."""

Place = tuple[float, float]
"""L0 and FVU."""


class Value(NamedTuple):
    """FVU at an L0."""

    fvu: float
    exact: bool
    """Whether it was measured there or between neighbours; not when beyond them, between distant ones or near one alone."""


def at(points: Iterable[Place], l0: float) -> Value | None:
    """FVU at `l0` on the front through `points`; None where they say nothing of it."""
    kept = sorted(place for place in points if place[0] > 0 and place[1] > 0 and math.isfinite(place[1]))
    if near := [fvu for own, fvu in kept if abs(own / l0 - 1) <= CLOSE]:
        return Value(min(near), True)
    below, above = [place for place in kept if place[0] < l0], [place for place in kept if place[0] > l0]
    if below and above:
        return Value(_line(below[-1], above[0], l0), above[0][0] / below[-1][0] <= WIDE)
    outer = below[-1:] or above[:1]
    if not outer or not 1 / REACH <= outer[0][0] / l0 <= REACH:
        return None
    pair = below[-2:] if below else above[:2]
    if len(pair) == 2 and pair[0][0] < pair[1][0] / 1.1:
        return Value(_line(pair[0], pair[1], l0), False)
    return Value(outer[0][1], False)


def _line(a: Place, b: Place, l0: float) -> float:
    share = math.log(l0 / a[0]) / math.log(b[0] / a[0])
    return math.exp((1 - share) * math.log(a[1]) + share * math.log(b[1]))


def front(points: Sequence[Place], tie: float = 0.0) -> list[int]:
    """Indices of the points that no other dominates (at most as large in both, smaller in one), by L0. In place of FVU there
    may be any cost.

    Args:
        tie: Of points that differ in L0 or in FVU by no more than this share, one stands for all: the better one by the
            other measure. What is left is a part of the front, and no zigzag.
    """
    kept: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if kept and not (points[i][1] < points[kept[-1]][1] or points[i] == points[kept[-1]]):
            continue
        if tie and kept:
            if points[i][0] <= points[kept[-1]][0] * (1 + tie):
                kept.pop()
            if kept and points[i][1] >= points[kept[-1]][1] - tie * abs(points[kept[-1]][1]):
                continue
        kept.append(i)
    return kept


def beaten(point: Place, others: Iterable[Place], tie: float) -> bool:
    """Whether another is at least as good in both measures, and by more than `tie` in one."""
    l0, fvu = point
    return any(own <= l0 and other <= fvu and (own * (1 + tie) < l0 or other * (1 + tie) < fvu) for own, other in others)
