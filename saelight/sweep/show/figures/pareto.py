"""Sparsity against reconstruction: what each variant's SAEs reach, and which of them nothing else beats."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saelight.sweep.show.figures.canvas import (
    FVU,
    INK,
    MARKERS,
    SIZE,
    Look,
    NothingToDraw,
    census,
    dot_area,
    key,
    legend,
    new_figure,
    plain,
    scale,
    styled,
)
from saelight.sweep.show.figures.selection import Row, finished, front, number, variant, width

OVERALL: dict[str, Any] = {"color": "#dedede", "linewidth": 7.0, "solid_capstyle": "round", "solid_joinstyle": "round"}
BEATEN = 0.28  # opacity
STOPPED = 0.65


Place = tuple[float, float]
"""L0 and FVU."""


class _Point(NamedTuple):
    row: Row
    place: Place


@styled()
def pareto(rows: Sequence[Row]) -> Figure:
    """L0 against FVU, with each variant's front: its finished points that none of its others beats in both."""
    look = Look(rows)
    points = [_Point(row, place) for row in rows if (place := _place(row))]
    done = [point for point in points if finished(point.row)]
    if not done:
        raise NothingToDraw("no finished point has an L0 and an FVU above 0")
    left_out = len(rows) - len(points)
    figure = new_figure(
        "Sparsity against reconstruction",
        [census(rows), f"{left_out} without an L0 or FVU left out" if left_out else ""],
        SIZE,
    )
    axes, widths = figure.subplots(), _Widths([point.row for point in points])
    dots = _Dots(axes, widths, dot_area(len(points)))
    shown = [name for name in look.variants if any(variant(point.row) == name for point in points)]
    if len(shown) > 1:
        axes.plot(*_lines(_front(done)), zorder=1, **OVERALL)
    beaten = [_draw_variant(dots, look, name, [p for p in points if variant(p.row) == name]) for name in shown]
    scale(axes, "x", [l0 for _, (l0, _) in points], log=True)
    scale(axes, "y", [fvu for _, (_, fvu) in points], log=True)
    axes.set_xlabel("L0 (active latents per token)")
    axes.set_ylabel(FVU)
    marks = _marks(several=len(shown) > 1, beaten=any(beaten), stopped=len(done) < len(points))
    legend(figure, {"variant": [look.key(name, line=True) for name in shown], "width": widths.keys(), "mark": marks})
    return figure


def _draw_variant(dots: "_Dots", look: Look, name: str, points: list[_Point]) -> int:
    """A variant's front, and all its points by what became of them; how many are off the front."""
    colour = look.colour(name)
    done = [point for point in points if finished(point.row)]
    best = _front(done)
    on_front = {id(point) for point in best}
    beaten = [point for point in done if id(point) not in on_front]
    dots.axes.plot(*_lines(best), look.line(name), color=colour, zorder=3)
    stopped = [point for point in points if not finished(point.row)]
    dots.draw(stopped, 0.8, facecolors="none", edgecolors=colour, linewidths=0.8, alpha=STOPPED, zorder=2)
    dots.draw(beaten, color=colour, alpha=BEATEN, linewidths=0, zorder=2)
    dots.draw(best, 1.3, color=colour, edgecolors="white", linewidths=0.6, zorder=4)
    return len(beaten)


def _marks(several: bool, beaten: bool, stopped: bool) -> list[Line2D]:
    """The legend of what a line or a dot stands for, of those that are drawn."""
    marks = [
        (several, key("front of all variants", linestyle="-", **OVERALL)),
        (beaten, key("beaten by its own variant", color=INK, marker="o", alpha=BEATEN)),
        (stopped, key("not finished", color=INK, marker="o", markerfacecolor="none", alpha=STOPPED)),
    ]
    return [mark for drawn, mark in marks if drawn]


def _front(points: list[_Point]) -> list[_Point]:
    return [points[i] for i in front([point.place for point in points])]


def _lines(points: list[_Point]) -> tuple[list[float], list[float]]:
    """Their coordinates, for matplotlib."""
    return [l0 for _, (l0, _) in points], [fvu for _, (_, fvu) in points]


def _place(row: Row) -> Place | None:
    """(L0, FVU) where both are known and can stand on a logarithmic axis."""
    l0, fvu = number(row["metrics"], "l0"), number(row["metrics"], "fvu")
    return (l0, fvu) if l0 and fvu and l0 > 0 and fvu > 0 else None


class _Dots:
    """Draws points, each with the marker of its width."""

    def __init__(self, axes: Axes, widths: "_Widths", area: float) -> None:
        self.axes, self.widths, self.area = axes, widths, area

    def draw(self, points: list[_Point], bigger: float = 1, **look: Any) -> None:
        for marker in MARKERS:
            if own := [point for point in points if self.widths.marker(point.row) == marker]:
                self.axes.scatter(*_lines(own), s=bigger * self.area, marker=marker, **look)


class _Widths:
    """A marker for each width, where the sweep has several, and not more than there are markers."""

    def __init__(self, rows: Sequence[Row]) -> None:
        found = sorted({w for row in rows if (w := width(row))})
        self.found = found if 1 < len(found) <= len(MARKERS) else []

    def marker(self, row: Row) -> str:
        own = width(row)
        return MARKERS[self.found.index(own)] if own in self.found else MARKERS[0]

    def keys(self) -> list[Line2D]:
        return [
            key(f"{plain(value)} latents" if field == "d_sae" else f"×{plain(value)}", color=INK, marker=marker)
            for (field, value), marker in zip(self.found, MARKERS, strict=False)
        ]
