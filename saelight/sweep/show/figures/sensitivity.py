"""Sensitivity: a panel for each setting the sweep varies, with FVU (and silhouette, where it was measured) against it."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saelight.sweep.show.figures.canvas import Look, NothingToDraw, census, dot_area, legend, new_figure, scale, styled, wide
from saelight.sweep.show.figures.selection import Row, finished, is_number, number, setting, variant

# What the Pareto figure is about, what colours tell, and what is chance.
NOT_SHOWN = {"sae.class_path", "sae.sparsity", "sae.k", "sae.target_l0", "sae.seed", "data.seed", "seed_everything"}
ALWAYS_LOG = {"sae.lr", "data.batch_size"}
UNITS = {"data.batch_size": " (tokens)"}
METRICS = {"fvu": "FVU", "silhouette": "silhouette score"}
COLUMNS = 3
MOST_VALUES = 12  # More numbers than this are binned, and more choices than this are not drawn.

Values = list[tuple[Row, Any]]


@styled()
def sensitivity(rows: Sequence[Row]) -> Figure:
    """Each variant's median against each swept setting, with a bar from its lowest to its highest point, and all points."""
    look, panels = Look(rows), []
    for name in METRICS:
        measured = [row for row in rows if finished(row) and number(row["metrics"], name) is not None]
        if settings := {key: values for key in _swept(measured) if (values := _values(measured, key))}:
            panels.append((name, settings))
    if not panels:
        raise NothingToDraw("besides variant, sparsity and seed, no setting varies among the finished points with an FVU")
    most = max(len(settings) for _, settings in panels)
    columns = math.ceil(most / math.ceil(most / COLUMNS))  # four panels are two and two
    lines = [math.ceil(len(settings) / columns) for _, settings in panels]
    notes = [census(rows), "Line: median; bar: lowest to highest, over all else that the sweep varies"]
    figure = new_figure("Sensitivity to settings", notes, (2.9 * columns + 2.0, 2.6 * sum(lines) + 0.9))
    grid = figure.subplots(sum(lines), columns, squeeze=False)
    for i, (name, settings) in enumerate(panels):
        block = list(grid[sum(lines[:i]) : sum(lines[: i + 1])].flat)
        measured = [row for values in settings.values() for row, _ in values]
        ys = [y for row in measured if (y := number(row["metrics"], name)) is not None]
        for j, (axes, (key, values)) in enumerate(zip(block, settings.items(), strict=False)):
            _panel(axes, look, key, values, name)
            scale(axes, "y", ys, log=name == "fvu" and wide(ys))
            axes.set_ylabel(METRICS[name] if j % columns == 0 else "")
        for axes in block[len(settings) :]:
            axes.remove()
    present = {variant(row) for _, settings in panels for values in settings.values() for row, _ in values}
    legend(figure, {"variant": [look.key(name, line=True) for name in look.variants if name in present]})
    return figure


def _swept(rows: Sequence[Row]) -> list[str]:
    """The settings that the sweep sets, in its order."""
    return [key for key in dict.fromkeys(key for row in rows for key in row["settings"]) if key not in NOT_SHOWN]


def _values(rows: Sequence[Row], key: str) -> Values:
    """The rows that have this setting with its value: numbers if all are, else words. Empty if it is not worth a panel."""
    pairs = [(row, setting(row, key)) for row in rows if key in row["settings"] or setting(row, key) is not None]
    if not all(is_number(value) for _, value in pairs):
        pairs = [(row, value if isinstance(value, str) else json.dumps(value)) for row, value in pairs]
    distinct = {value for _, value in pairs}
    too_many = len(distinct) > MOST_VALUES and isinstance(pairs[0][1], str)
    return [] if len(distinct) < 2 or too_many else pairs


def _panel(axes: Axes, look: Look, key: str, values: Values, metric: str) -> None:
    """One setting against one metric. Variants stand side by side at each value."""
    distinct = sorted({v for _, v in values}) if is_number(values[0][1]) else list(dict.fromkeys(v for _, v in values))
    numeric = is_number(distinct[0])
    log = numeric and min(distinct) > 0 and (key in ALWAYS_LOG or wide(distinct))
    to_axis: Callable[[Any], float] = (math.log10 if log else float) if numeric else distinct.index
    from_axis: Callable[[float], float] = (lambda t: 10**t) if log else float
    places = [to_axis(value) for value in distinct]
    few = len(distinct) <= MOST_VALUES
    step = 0.6 * min(b - a for a, b in pairwise(places)) if few else 0
    shown = [name for name in look.variants if any(variant(row) == name for row, _ in values)]
    for i, name in enumerate(shown):
        shift = step * ((i + 0.5) / len(shown) - 0.5)
        of_variant = [(to_axis(v) + shift, number(row["metrics"], metric)) for row, v in values if variant(row) == name]
        own = [(x, y) for x, y in of_variant if y is not None]
        colour = look.colour(name)
        axes.scatter(
            [from_axis(t) for t, _ in own],
            [y for _, y in own],
            s=dot_area(len(values)) * 0.45,
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
            marker="o",
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    axes.set_xlabel(key + UNITS.get(key, ""))
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
