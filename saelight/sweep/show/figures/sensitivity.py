"""Sensitivity: a panel for each setting the sweep varies, with FVU at equal L0 (and silhouette, where it was measured)
against it."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saelight.sweep.show.figures.canvas import Look, NothingToDraw, census, dot_area, legend, new_figure, scale, styled, wide
from saelight.sweep.show.figures.selection import Row, finished, is_number, number, setting, variant
from saelight.sweep.show.fronts import Place, at

# What sparsity decides, what colours tell, and what is chance.
SPARSITY = {"sae.sparsity", "sae.k", "sae.target_l0"}
NOT_SHOWN = SPARSITY | {"sae.class_path", "sae.seed", "data.seed", "seed_everything"}
NOT_OF_TRAINING = ("trainer.callbacks",)
ALWAYS_LOG = {"sae.lr", "data.batch_size"}
WORDS = {"lr": "learning rate", "batch_size": "batch size (tokens)", "d_sae": "latents (d_sae)", "k_aux": "AuxK's k"}
METRICS = {"fvu": "FVU at equal L0", "silhouette": "silhouette score"}
COLUMNS = 3
MOST_VALUES = 12  # More numbers than this are binned, and more choices than this are not drawn.


class _Mark(NamedTuple):
    variant: str
    value: Any
    """Of the setting."""
    y: float


@styled()
def sensitivity(rows: Sequence[Row]) -> Figure:
    """Each variant's median against each swept setting, with a bar from its lowest to its highest mark, and all marks.

    FVU is that at the variant's median L0, on the front of the points that differ in nothing but what decides sparsity: a
    setting that makes SAEs denser does not look better for it.
    """
    look, panels, left_out = Look(rows), [], 0
    for name in METRICS:
        measured = [row for row in rows if finished(row) and number(row["metrics"], name) is not None]
        settings = {}
        for key in _swept(measured):
            if _is_worth_a_panel(values := _values(measured, key)):
                marks, missed = _at_equal_l0(measured, key, values) if name == "fvu" else (_as_is(values, name), 0)
                left_out = max(left_out, missed)
                if len({mark.value for mark in marks}) > 1:
                    settings[key] = marks
        if settings:
            panels.append((name, settings))
    if not panels:
        raise NothingToDraw("besides variant, sparsity and seed, no setting varies among the finished points with an FVU")
    most = max(len(settings) for _, settings in panels)
    columns = math.ceil(most / math.ceil(most / COLUMNS))  # four panels are two and two
    lines = [math.ceil(len(settings) / columns) for _, settings in panels]
    notes = [
        census(rows),
        "Line: median; bar: lowest to highest, over all else that the sweep varies",
        "FVU between points of unlike L0 is read off at the variant's median L0",
        f"{left_out} too far from that L0 left out" if left_out else "",
    ]
    figure = new_figure("Sensitivity to settings", notes, (2.9 * columns + 2.0, 2.6 * sum(lines) + 0.9))
    grid = figure.subplots(sum(lines), columns, squeeze=False)
    for i, (name, settings) in enumerate(panels):
        block = list(grid[sum(lines[:i]) : sum(lines[: i + 1])].flat)
        ys = [mark.y for marks in settings.values() for mark in marks]
        for j, (axes, (key, marks)) in enumerate(zip(block, settings.items(), strict=False)):
            _panel(axes, look, key, marks)
            scale(axes, "y", ys, log=name == "fvu" and wide(ys))
            axes.set_ylabel(METRICS[name] if j % columns == 0 else "")
        for axes in block[len(settings) :]:
            axes.remove()
    present = {mark.variant for _, settings in panels for marks in settings.values() for mark in marks}
    legend(figure, {"variant": [look.key(name, line=True) for name in look.variants if name in present]})
    return figure


def _swept(rows: Sequence[Row]) -> list[str]:
    """The settings that the sweep sets, in its order."""
    keys = dict.fromkeys(key for row in rows for key in row["settings"])
    return [key for key in keys if key not in NOT_SHOWN and not key.startswith(NOT_OF_TRAINING)]


def _values(rows: Sequence[Row], key: str) -> list[tuple[Row, Any]]:
    """The rows that have this setting with its value: numbers if all are, else words."""
    pairs = [(row, setting(row, key)) for row in rows if key in row["settings"] or setting(row, key) is not None]
    if not all(is_number(value) for _, value in pairs):
        pairs = [(row, value if isinstance(value, str) else json.dumps(value)) for row, value in pairs]
    return pairs


def _is_worth_a_panel(pairs: list[tuple[Row, Any]]) -> bool:
    distinct = {value for _, value in pairs}
    return len(distinct) > 1 and not (len(distinct) > MOST_VALUES and isinstance(pairs[0][1], str))


def _as_is(values: list[tuple[Row, Any]], metric: str) -> list[_Mark]:
    return [_Mark(variant(row), value, y) for row, value in values if (y := number(row["metrics"], metric)) is not None]


def _at_equal_l0(measured: Sequence[Row], key: str, values: list[tuple[Row, Any]]) -> tuple[list[_Mark], int]:
    """A mark for each front: the points of a variant and a value that differ in nothing else but what decides sparsity. And
    how many say nothing of the L0 where they are compared."""
    fronts: dict[tuple[str, Any, str], list[Place]] = defaultdict(list)
    for row, value in values:
        others = {k: v for k, v in row["settings"].items() if k not in (SPARSITY | {key})}
        l0, fvu = number(row["metrics"], "l0"), number(row["metrics"], "fvu")
        if l0 and fvu and l0 > 0:
            fronts[variant(row), value, json.dumps(others, sort_keys=True, default=str)].append((l0, fvu))
    usual = {
        name: median(l0 for (own, *_), places in fronts.items() if own == name for l0, _ in places)
        for name in {own for own, *_ in fronts}
    }
    found = [(name, value, at(places, usual[name])) for (name, value, _), places in fronts.items()]
    marks = [_Mark(name, value, here.fvu) for name, value, here in found if here is not None]
    return marks, len(found) - len(marks)


def _panel(axes: Axes, look: Look, key: str, marks: list[_Mark]) -> None:
    """One setting against one metric. Variants stand side by side at each value."""
    distinct = list(dict.fromkeys(mark.value for mark in marks))
    if is_number(distinct[0]):
        distinct = sorted(distinct)
    numeric = is_number(distinct[0])
    log = numeric and min(distinct) > 0 and (key in ALWAYS_LOG or wide(distinct))
    to_axis: Callable[[Any], float] = (math.log10 if log else float) if numeric else distinct.index
    from_axis: Callable[[float], float] = (lambda t: 10**t) if log else float
    places = [to_axis(value) for value in distinct]
    few = len(distinct) <= MOST_VALUES
    step = 0.6 * min(b - a for a, b in pairwise(places)) if few else 0
    shown = [name for name in look.variants if any(mark.variant == name for mark in marks)]
    for i, name in enumerate(shown):
        shift = step * ((i + 0.5) / len(shown) - 0.5)
        own = [(to_axis(mark.value) + shift, mark.y) for mark in marks if mark.variant == name]
        colour = look.colour(name)
        axes.scatter(
            [from_axis(t) for t, _ in own],
            [y for _, y in own],
            s=dot_area(len(marks)) * 0.45,
            marker=look.marker(name),
            color=colour,
            alpha=0.3,
            linewidths=0,
            zorder=2,
        )
        xs, lows, middles, highs = zip(*_summary(own, few), strict=True)
        centres = [from_axis(x) for x in xs]
        # Bars, as the bands of a few variants would lie over each other and hide what they are of.
        axes.vlines(centres, lows, highs, color=colour, alpha=0.18, linewidth=4.5, zorder=1)
        axes.plot(
            centres,
            middles,
            linestyle=look.line(name) if numeric else "none",
            color=colour,
            linewidth=1.4,
            marker=look.marker(name),
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    axes.set_xlabel(_words(key))
    if numeric:
        ends = [from_axis(places[0] - step / 2), from_axis(places[-1] + step / 2)]
        scale(axes, "x", ends, log=log, ticks=distinct if few else None)
    else:
        crowded = max(map(len, distinct)) * len(distinct) > 30
        axes.set_xlim(-0.6, len(distinct) - 0.4)
        axes.set_xticks(
            places,
            [v if len(v) <= 24 else "…" + v[-23:] for v in distinct],
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
        )
        axes.grid(False, axis="x")


def _summary(points: list[tuple[float, float]], few: bool) -> list[tuple[float, float, float, float]]:
    """(x, lowest, median, highest) at each x or, where the values are many, in bins of equal numbers of points."""
    groups: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    bins = min(6, max(1, len(points) // 4))
    for rank, point in enumerate(sorted(points)):
        groups[point[0] if few else rank * bins // len(points)].append(point)
    summary = []
    for group in groups.values():
        ys = [y for _, y in group]
        summary.append((median(x for x, _ in group), min(ys), median(ys), max(ys)))
    return summary


def _words(key: str) -> str:
    """A setting as people say it: `sae.aux_coefficient` is "aux coefficient"."""
    name = key.partition(".")[2] or key
    return WORDS.get(name, name.replace("_", " ").replace(".", ", "))
