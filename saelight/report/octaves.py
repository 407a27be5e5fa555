"""Which SAE is the best at an L0, octave by octave."""

import math
from collections.abc import Sequence

from saelight.sweep.show.fronts import Place

TIE = 0.01
"""The part by which a point of a front has to be better than every sparser one: less is noise, and would make a zigzag."""


def octave(l0: float) -> int:
    """n with 2ⁿ ≤ L0 < 2ⁿ⁺¹, for an L0 above 0."""
    return math.frexp(l0)[1] - 1


def best_by_octave(places: Sequence[Place]) -> dict[int, int]:
    """By octave of L0, in ascending order: the index of the place (L0, and a cost) that costs least; of equals the
    sparsest."""
    best: dict[int, int] = {}
    for i, (l0, cost) in enumerate(places):
        n = octave(l0)
        if n not in best or (cost, l0) < (places[best[n]][1], places[best[n]][0]):
            best[n] = i
    return dict(sorted(best.items()))
