"""A sweep's points: its branches multiplied out or drawn from, named, filtered."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from saelight.errors import UserError
from saelight.sweep.plan.distributions import Chooser, RandomChooser, pick
from saelight.sweep.plan.names import name_points
from saelight.sweep.plan.spec import Axis, Branch, Sweep, check_key

MOST = 100_000
"""Points of one sweep. More are a slip, such as one axis too many."""


@dataclass(frozen=True)
class Point:
    """One SAE's place in a sweep."""

    name: str
    settings: dict[str, Any]
    """What the sweep and the command line set, by dotted key."""
    index: int
    """Its place in the whole sweep, whatever --filter and --limit leave: its automatic seed derives from it."""


@dataclass(frozen=True)
class Draft:
    """A point before it has a name: the names of its branches, and its settings."""

    prefix: tuple[str, ...]
    settings: dict[str, Any]


def expand(sweep: Sweep, overrides: dict[str, Any] | None = None) -> tuple[list[Point], list[str]]:
    """All points of a grid or random sweep, and notes on what the overrides collapsed.

    Raises `UserError` when there is none.
    """
    overrides = overrides or {}
    check_overrides(overrides)
    if sweep.method == "random":
        _refuse_too_many(sweep, sweep.run_cap or 0)
        drafts = [draw(sweep.root, RandomChooser([sweep.seed, i])) for i in range(sweep.run_cap or 0)]
    elif sweep.method == "grid":
        _refuse_too_many(sweep, sweep.run_cap or _size(sweep.root))
        drafts = list(itertools.islice(_grid(sweep.root), sweep.run_cap))
    else:
        raise UserError(f"{sweep.file}: method {sweep.method} has no list of points: its search makes them as it runs")
    if not drafts:
        raise UserError(f"{sweep.file}: no points: give `parameters`, `cases` or `runs`")
    notes, before = [], len(drafts)
    drafts = [Draft(draft.prefix, draft.settings | overrides) for draft in drafts]
    if overrides:
        drafts = list({json.dumps([d.prefix, d.settings], sort_keys=True, default=str): d for d in drafts}.values())
        moving = {key for axis in axes(sweep.root) if len(axis.rows) > 1 for key in axis.keys}
        swept = sorted(moving & overrides.keys())
        if swept:
            notes.append(f"--set fixes the swept {', '.join(swept)}: {before} points become {len(drafts)}")
    names = name_points([(d.prefix, d.settings) for d in drafts])
    return [Point(name, d.settings, i) for i, (name, d) in enumerate(zip(names, drafts, strict=True))], notes


def check_overrides(overrides: dict[str, Any]) -> None:
    """Raise `UserError` for a key of the command line's that addresses no part of a config."""
    for key in overrides:
        check_key(key, "--set")


def select(points: list[Point], pattern: str | None = None, limit: int | None = None) -> list[Point]:
    """The points whose name holds `pattern` (text, or a glob of the whole name, or several with commas between), and of
    those the first `limit`.

    Raises `UserError` when none is left.
    """
    chosen = points
    if pattern is not None:
        chosen = [point for point in points if any(_matches(point.name, part) for part in pattern.split(","))]
        if not chosen:
            raise UserError(f"--filter {pattern} leaves no point; names are like {points[0].name}, {points[-1].name}")
    return chosen[:limit]


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def draw(branch: Branch, chooser: Chooser) -> Draft:
    """One point: each axis drawn, and one of the children."""
    prefix: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    if branch.name is not None:
        prefix += (branch.name,)
    for axis in branch.axes:
        label = "+".join(axis.keys)
        if axis.distribution is not None:
            settings[axis.keys[0]] = axis.distribution.draw(label, chooser)
        else:
            row = axis.rows[pick(label, len(axis.rows), axis.probabilities, chooser)]
            prefix, settings = _with_row(prefix, settings, axis, row)
    if branch.children:
        number = pick(f"{branch.where}case", len(branch.children), None, chooser)
        inner = draw(branch.children[number], chooser)
        prefix, settings = prefix + inner.prefix, settings | inner.settings
    return Draft(prefix, settings)


def _refuse_too_many(sweep: Sweep, points: int) -> None:
    if points > MOST:
        raise UserError(f"{sweep.file}: more than {MOST:,} points: draw some by method random, or list fewer values")


def _size(branch: Branch) -> int:
    """How many points a grid has."""
    own = math.prod(len(axis.rows) for axis in branch.axes)
    return own * sum(map(_size, branch.children)) if branch.children else own


def _grid(branch: Branch) -> Iterator[Draft]:
    if not branch.children:
        # A branch that says nothing at all is no point; one that has only a name is the base itself.
        yield from _products(branch) if branch.axes or branch.name is not None else ()
    for child in branch.children:
        for inner in _grid(child):
            for draft in _products(branch):
                yield Draft(draft.prefix + inner.prefix, draft.settings | inner.settings)


def _products(branch: Branch) -> Iterator[Draft]:
    """The points of a branch's own axes."""
    own: tuple[str, ...] = () if branch.name is None else (branch.name,)
    for rows in itertools.product(*(axis.rows for axis in branch.axes)):
        prefix, settings = own, dict[str, Any]()
        for axis, row in zip(branch.axes, rows, strict=True):
            prefix, settings = _with_row(prefix, settings, axis, row)
        yield Draft(prefix, settings)


def _with_row(
    prefix: tuple[str, ...], settings: dict[str, Any], axis: Axis, row: tuple[Any, ...]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    values = dict(zip(axis.keys, row, strict=True))
    if "name" in values:
        prefix += (str(values.pop("name")),)
    return prefix, settings | values


def axes(branch: Branch) -> Iterator[Axis]:
    """All axes of a branch and of those in it."""
    yield from branch.axes
    for child in branch.children:
        yield from axes(child)
