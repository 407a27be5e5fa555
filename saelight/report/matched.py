"""How a setting changes the FVU among SAEs of the same variant and nearly the same L0."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

NEAR = 1.25
"""The factor of L0 within which SAEs are compared."""
LEAST = 3
"""SAEs that a comparison takes."""


class Measured(NamedTuple):
    """An SAE that can be compared."""

    variant: str
    l0: float
    fvu: float


def relative(saes: Sequence[Measured]) -> list[float | None]:
    """Each SAE's FVU over the median FVU of those of its variant, itself among them, whose L0 is within a factor `NEAR`.

    None where these are fewer than `LEAST`, and for an L0 or FVU that is not above 0.
    """
    by_variant: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for variant, l0, fvu in saes:
        if l0 > 0 and fvu > 0:
            by_variant[variant].append((l0, fvu))
    for places in by_variant.values():
        places.sort()
    return [_relative(by_variant[sae.variant], sae) if sae.l0 > 0 and sae.fvu > 0 else None for sae in saes]


def _relative(places: list[tuple[float, float]], sae: Measured) -> float | None:
    low = bisect_left(places, sae.l0 / NEAR, key=lambda place: place[0])
    high = bisect_right(places, sae.l0 * NEAR, key=lambda place: place[0])
    near = [fvu for _, fvu in places[low:high]]
    return sae.fvu / median(near) if len(near) >= LEAST else None
