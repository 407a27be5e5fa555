"""FVU compared at the same measured L0, and the penalty's weight that meets an L0."""

import math
from collections.abc import Iterable, Sequence

from benchmarks.quality.runs import Measured
from saelight.sweep.show import fronts
from saelight.sweep.show.fronts import Value


def at(points: Iterable[Measured], l0: float) -> Value | None:
    """FVU at `l0` on the front through `points`; None where they say nothing of it."""
    return fronts.at([(point.l0, point.fvu) for point in points], l0)


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
