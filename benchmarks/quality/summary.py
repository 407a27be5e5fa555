"""What a library reached with a variant at an L0: its best rate, over the seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.quality.grid import best_rate, value_at
from benchmarks.quality.runs import OURS, Result


@dataclass(frozen=True)
class Entry:
    """A library's variant at a measured L0."""

    lr: float
    fvu: float
    """The mean over the seeds."""
    spread: float
    """Half the distance between the seeds' values; 0 of one seed."""
    exact: bool
    """Whether the L0 lies between measured ones."""
    other_fvu: float
    """On the other text, at the same L0 measured there."""
    never_fired: float
    seconds: float
    seeds: int
    default_fvu: float | None
    """At the rate that the library chooses, where it was asked to."""
    inside: bool
    """Whether the best rate lies inside those tried."""


def entry(results: Sequence[Result], l0: int) -> Entry | None:
    """Of one library's results with one variant; None where nothing aimed at this L0."""
    searched = [r for r in results if r.run.seed == 0 and r.run.lr is not None]
    lr = best_rate(searched, l0)
    if lr is None:
        return None
    rates = sorted({r.run.lr for r in searched if r.run.l0 == l0 and r.run.lr is not None})
    seeds = sorted({r.run.seed for r in results if r.run.l0 == l0 and r.run.lr == lr})
    values, others = [], []
    for seed in seeds:
        # The second seed has its own point here, and the first one's to either side.
        points = [r for r in searched if r.run.l0 != l0] + [r for r in results if r.run.l0 == l0 and r.run.seed == seed]
        value, other = value_at(points, l0, lr), value_at(points, l0, lr, other=True)
        assert value is not None
        assert other is not None
        values.append(value)
        others.append(other.fvu)
    default = value_at([*searched, *(r for r in results if r.run.lr is None)], l0, None)
    nearest = min(
        (r for r in searched if r.run.l0 == l0 and r.run.lr == lr),
        key=lambda r: abs(math.log(max(r.held_out.l0, 1e-9) / l0)),
    )
    found = [value.fvu for value in values]
    return Entry(
        lr,
        fmean(found),
        (max(found) - min(found)) / 2,
        all(value.exact for value in values),
        fmean(others),
        nearest.never_fired,
        nearest.seconds,
        len(seeds),
        default.fvu if default else None,
        lr not in (rates[0], rates[-1]),
    )


def entries(results: Sequence[Result], variant: str, l0: int) -> dict[str, Entry]:
    """By library, ours first; all results on the same rows."""
    found = {}
    for library in sorted({r.run.library for r in results}, key=lambda name: (name != OURS, name)):
        mine = [r for r in results if r.run.library == library and r.run.variant == variant]
        if (made := entry(mine, l0)) is not None:
            found[library] = made
    return found


def best_peer(found: dict[str, Entry], other: bool = False) -> str | None:
    """The library with the lowest FVU among the others."""
    peers = [name for name in found if name != OURS]
    return min(peers, key=lambda name: found[name].other_fvu if other else found[name].fvu) if peers else None
