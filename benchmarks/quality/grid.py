"""What to train next: learning rates until the best one lies inside, weights of the penalty until L0 is met, then seeds.

Everything is a function of the results that are there, so that a benchmark stopped anywhere goes on from there.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.quality.fronts import Value, at, coefficient_for
from benchmarks.quality.runs import OURS, Measured, Result, Run

MET = 0.03
"""Relative difference of L0 at which no further weight of the penalty is tried."""


@dataclass(frozen=True)
class Start:
    """Where the search begins, of a library's variant."""

    lr: float
    """The middle of the first rates."""
    coefficient: float | None = None
    """The penalty's first weight at L0 32; None where the library aims at an L0 by itself."""


STARTS: dict[str, dict[str, Start]] = {
    OURS: {
        "topk": Start(5e-3),
        "batch_topk": Start(5e-3),
        "matryoshka": Start(5e-3),
        "gated": Start(1e-2),
        "jump_relu": Start(1e-2),
        "relu": Start(1e-2),
    },
    "sae_lens": {
        "topk": Start(4e-3),
        "batch_topk": Start(4e-3),
        "matryoshka": Start(4e-3),
        "gated": Start(4e-3, 1.0),
        "jump_relu": Start(4e-3, 0.7),
        "relu": Start(4e-3, 1.0),
    },
    "dictionary_learning": {
        "topk": Start(2e-3),
        "batch_topk": Start(2e-3),
        "matryoshka": Start(2e-3),
        "gated": Start(2e-3, 0.05),
        "jump_relu": Start(2e-3),
        "relu": Start(2e-3, 0.05),
    },
    "sparsify": {"topk": Start(2e-3)},
}
VARIANTS = tuple(STARTS[OURS])


@dataclass(frozen=True)
class Grid:
    """How much is tried: for every library and variant the same."""

    lrs: int = 3
    """Rates to begin with, a factor of 2 apart."""
    extensions: int = 5
    """Rates more, at most, one at a time beyond the edge where the best lies."""
    tries: int = 3
    """Weights of the penalty for a rate and an L0, at most."""
    seeds: int = 2
    """At the best rate."""


def first_rates(middle: float, n: int) -> list[float]:
    """`n` rates a factor of 2 apart around `middle`."""
    return [middle * 2.0 ** (i - n // 2) for i in range(n)]


def following(base: Run, grid: Grid, results: Iterable[Result]) -> list[Run]:
    """The runs that are due for base's library, variant and L0; none when all is done.

    Args:
        base: What all of its runs have in common; lr, coefficient and seed are set here.
    """
    alike = [r for r in results if _kind(r.run) == _kind(base)]
    start = STARTS[base.library][base.variant]
    searched = [r for r in alike if r.run.seed == 0 and r.run.lr is not None]
    own = {r.run.lr for r in searched if r.run.l0 == base.l0}
    middle = _middle(base, start, searched)
    rates = sorted(own if len(own) >= grid.lrs else own | set(first_rates(middle, grid.lrs)))
    outwards = sorted(rates, key=lambda lr: abs(math.log(lr / middle)))
    due = [run for lr in outwards for run in _tries(base, lr, start, grid, searched)]
    if base.library == OURS and not any(r.run.lr is None and r.run.l0 == base.l0 for r in alike):
        due.append(replace(base, lr=None, coefficient=None, seed=0))
    if due:
        return due
    best = best_rate(searched, base.l0)
    if best is None:
        return []
    if best in (rates[0], rates[-1]) and len(rates) < grid.lrs + grid.extensions:
        return _tries(base, best * (2.0 if best == rates[-1] else 0.5), start, grid, searched)
    nearest = min(
        (r.run for r in searched if r.run.l0 == base.l0 and r.run.lr == best),
        key=lambda run: abs(math.log(max(_l0(run, searched), 1e-9) / base.l0)),
    )
    seeds = [replace(nearest, seed=seed) for seed in range(1, grid.seeds)]
    done = {r.run for r in alike}
    return [run for run in seeds if run not in done]


def _middle(base: Run, start: Start, searched: Collection[Result]) -> float:
    """Around which rate to begin: the best one of the nearest L0, where there is one."""
    others = sorted({r.run.l0 for r in searched} - {base.l0}, key=lambda l0: abs(math.log(l0 / base.l0)))
    return next((best for l0 in others if (best := best_rate(searched, l0)) is not None), start.lr)


def _kind(run: Run) -> Run:
    return replace(run, l0=0, lr=None, coefficient=None, seed=0)


def _l0(run: Run, results: Iterable[Result]) -> float:
    return next(r.held_out.l0 for r in results if r.run == run)


def _tries(base: Run, lr: float, start: Start, grid: Grid, searched: Collection[Result]) -> list[Run]:
    """What is due at a rate."""
    run = replace(base, lr=lr, coefficient=None, seed=0)
    here = [r for r in searched if r.run.l0 == base.l0 and r.run.lr == lr]
    if start.coefficient is None:
        return [] if here else [run]
    if len(here) >= grid.tries or any(abs(r.held_out.l0 / base.l0 - 1) <= MET for r in here):
        return []
    rates = sorted({r.run.lr for r in searched}, key=lambda other: abs(math.log(other / lr)))
    known = next(([r for r in searched if r.run.lr == other] for other in rates), [])
    tried = [(r.run.coefficient, r.held_out.l0) for r in known if r.run.coefficient is not None]
    coefficient = coefficient_for(base.l0, tried, start.coefficient * 32 / base.l0)
    run = replace(run, coefficient=float(f"{coefficient:.3g}"))
    return [] if any(r.run == run for r in here) else [run]


def best_rate(results: Collection[Result], l0: int) -> float | None:
    """The rate with the lowest FVU at a measured L0, of those tried for it."""
    values = {lr: value_at(results, l0, lr) for lr in {r.run.lr for r in results if r.run.l0 == l0}}
    known = {lr: value.fvu for lr, value in values.items() if value is not None and math.isfinite(value.fvu)}
    return min(known, key=known.__getitem__) if known else None


def value_at(results: Collection[Result], l0: int, lr: float | None, other: bool = False) -> Value | None:
    """FVU at a measured L0 with one rate: between its own points there, and where it has none the best ones of others.

    Where no point is near, that of the run which aimed at this L0, not exact; None where there is no such run.

    Args:
        other: On the other text.
    """
    own = [r for r in results if r.run.lr == lr]
    aimed = [_measured(r, other) for r in own if r.run.l0 == l0]
    if not aimed:
        return None
    elsewhere = {r.run.l0 for r in results} - {r.run.l0 for r in own}
    rest = [_lowest([_measured(r, other) for r in results if r.run.l0 == target]) for target in elsewhere]
    value = at([*(_measured(r, other) for r in own), *rest], l0)
    return value or Value(min(aimed, key=lambda m: abs(math.log(max(m.l0, 1e-9) / l0))).fvu, False)


def _lowest(points: Sequence[Measured]) -> Measured:
    return min(points, key=lambda m: m.fvu if math.isfinite(m.fvu) else math.inf)


def _measured(result: Result, other: bool) -> Measured:
    return result.out_of_distribution if other else result.held_out
