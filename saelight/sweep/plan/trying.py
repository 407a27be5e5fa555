"""A search checked before it runs: every value that it lists and every case it has, in points that are drawn at random."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from saelight.errors import UserError
from saelight.sweep.plan.distributions import RandomChooser
from saelight.sweep.plan.entry import Resolved
from saelight.sweep.plan.points import Point, check_overrides, draw
from saelight.sweep.plan.spec import Branch, Sweep

_DRAWS = 8
"""How often a value may meet others that it does not go with, before it is held to go with none."""


def try_out(sweep: Sweep, overrides: dict[str, Any], at_least: int) -> Resolved:
    """Some points of a search, `at_least` so many where it has them, those with each listed value among them.

    Raises:
        UserError: for a value that no point is well with.
    """
    from saelight.sweep.plan.resolve import resolve  # torch

    check_overrides(overrides)
    tried = Resolved()
    numbers = count()

    def point(branch: Branch) -> Point:
        i = next(numbers)
        return Point(f"trial {i}", draw(branch, RandomChooser([sweep.seed, i])).settings | overrides, i)

    branches = [sweep.root, *_alternatives(sweep.root), *[sweep.root] * at_least]
    try:
        # What they have in common is read once.
        return resolve(sweep, [point(branch) for branch in branches])
    except UserError:
        pass
    for branch in branches:
        for last in range(_DRAWS - 1, -1, -1):
            try:
                _take(tried, resolve(sweep, [point(branch)]))
                break
            except UserError:
                if not last:
                    raise
        if tried.missing:
            # Widths are checked when the data are there; until then one point says it all.
            break
    return tried


def _take(tried: Resolved, one: Resolved) -> None:
    known = {entry.hash for entry in tried.entries}
    tried.entries += [entry for entry in one.entries if entry.hash not in known]
    tried.run_configs |= one.run_configs
    tried.missing = one.missing
    tried.notes += [note for note in one.notes if note not in tried.notes]


def _alternatives(branch: Branch) -> Iterator[Branch]:
    """The branch with one choice made in it, for each there is."""
    for i, axis in enumerate(branch.axes):
        for row in axis.rows if len(axis.rows) > 1 else ():
            yield replace(
                branch, axes=[*branch.axes[:i], replace(axis, rows=[row], probabilities=None), *branch.axes[i + 1 :]]
            )
    for child in branch.children:
        yield replace(branch, children=[child])
        for inner in _alternatives(child):
            yield replace(branch, children=[inner])
