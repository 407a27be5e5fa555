"""Which SAEs are on the front of L0 against a metric, and which is the best at an L0."""

import math
from collections.abc import Sequence

TIE = 0.01
"""The part by which a point has to be better than every sparser one: less is noise, and would make a zigzag."""
Place = tuple[float, float]
"""L0, and a cost: lower is better in both."""


def front(places: Sequence[Place]) -> list[int]:
    """Indices of the places on the front, by L0: each costs at least `TIE` less than every one of no larger L0."""
    kept: list[int] = []
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        if not kept or places[i][1] < places[kept[-1]][1] - TIE * abs(places[kept[-1]][1]):
            kept.append(i)
    return kept


def octave(l0: float) -> int:
    """n with 2ⁿ ≤ L0 < 2ⁿ⁺¹, for an L0 above 0."""
    return math.frexp(l0)[1] - 1


def best_by_octave(places: Sequence[Place]) -> dict[int, int]:
    """By octave of L0, in ascending order: the index of the place that costs least; of equals the sparsest."""
    best: dict[int, int] = {}
    for i, (l0, cost) in enumerate(places):
        n = octave(l0)
        if n not in best or (cost, l0) < (places[best[n]][1], places[best[n]][0]):
            best[n] = i
    return dict(sorted(best.items()))
