"""Sparsity against reconstruction: what each variant's SAEs reach, and which of them nothing else beats."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saelight.sweep.show.figures.canvas import (
    FVU,
    INK,
    SIZE,
    SMALL,
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
from saelight.sweep.show.figures.selection import Row, about, finished, number, variant, width
from saelight.sweep.show.fronts import Place, beaten, front

OVERALL: dict[str, Any] = {"color": "#dedede", "linewidth": 7.0, "solid_capstyle": "round", "solid_joinstyle": "round"}
BEATEN = 0.28  # opacity
STOPPED = 0.65
TIE = 0.01
"""Points that differ by less than this share, a few seeds' noise, are as good as each other."""
MOST_NAMED = 10
LONGEST_NAME = 28


class _Cost(NamedTuple):
    """What stands against L0."""

    title: str
    label: str
    name: str
    drawable: str
    """Of which value there is a logarithm."""
    of: Callable[[Mapping[str, Any] | None], float | None]
    """From metrics: positive where it is known, and better where it is smaller."""


_FVU = _Cost("Sparsity against reconstruction", FVU, "FVU", "an FVU above 0", lambda metrics: number(metrics, "fvu"))
_LOSS = _Cost(
    "Sparsity against the model's loss",
    "1 - loss recovered (of zero ablation)",
    "loss recovered",
    "a loss recovered below 1",
    lambda metrics: None if (share := number(metrics, "loss_recovered")) is None else 1 - share,
)


class _Point(NamedTuple):
    row: Row
    place: Place


@styled()
def pareto(rows: Sequence[Row]) -> Figure:
    """L0 against FVU, with each variant's front: its finished points that none of its others beats in both.

    Points within 1 % of each other count as one on a line; those of the front of all are numbered, and named beside it.
    """
    return _against_l0(rows, _FVU)


@styled()
def loss_recovered(rows: Sequence[Row]) -> Figure:
    """The same with the share of the model's loss that the SAE does not recover in place of FVU."""
    return _against_l0(rows, _LOSS)


def _against_l0(rows: Sequence[Row], cost: _Cost) -> Figure:
    look = Look(rows)
    points = [_Point(row, place) for row in rows if (place := _place(row, cost))]
    done = [point for point in points if finished(point.row)]
    if not done:
        raise NothingToDraw(f"no finished point has an L0 and {cost.drawable}")
    left_out = len(rows) - len(points)
    figure = new_figure(
        cost.title,
        [census(rows), f"{left_out} without an L0 or {cost.name} left out" if left_out else ""],
        SIZE,
    )
    axes, widths = figure.subplots(), _Widths([point.row for point in points], dot_area(len(points)))
    axes.set_title(about(rows), loc="left", fontsize=8.5, color=SMALL)
    shown = [name for name in look.variants if any(variant(point.row) == name for point in points)]
    best = _front(done)
    if len(shown) > 1:
        axes.plot(*_lines(best), zorder=1, **OVERALL)
    off = [_draw_variant(axes, widths, look, name, [p for p in points if variant(p.row) == name]) for name in shown]
    named = best[:: -(-len(best) // MOST_NAMED)]
    for i, point in enumerate(named, 1):
        # By turns on either side of the front: neighbours may be close.
        place, align = ((-5, -11), "right") if i % 2 else ((5, 4), "left")
        axes.annotate(str(i), point.place, place, textcoords="offset points", ha=align, fontsize=8, color=INK, zorder=5)
    scale(axes, "x", [l0 for _, (l0, _) in points], log=True)
    scale(axes, "y", [fvu for _, (_, fvu) in points], log=True)
    axes.set_xlabel("L0 (active latents per token)")
    axes.set_ylabel(cost.label)
    marks = _marks(several=len(shown) > 1, off=any(off), stopped=len(done) < len(points))
    names = [key(f"{i}  {_short(point.row['name'])}") for i, point in enumerate(named, 1)]
    keys = {"variant": [look.key(name, line=True) for name in shown], "width": widths.keys(), "mark": marks}
    legend(figure, keys | {"on the front of all" if len(shown) > 1 else "on the front": names})
    return figure


def _draw_variant(axes: Axes, widths: "_Widths", look: Look, name: str, points: list[_Point]) -> int:
    """A variant's front, and all its points by what became of them; how many are clearly off the front."""
    colour, marker = look.colour(name), look.marker(name)
    done, stopped = _split(points, [finished(point.row) for point in points])
    places = [point.place for point in done]
    off, good = _split(done, [beaten(point.place, places, TIE) for point in done])
    axes.plot(*_lines(_front(done)), look.line(name), color=colour, zorder=3)

    def draw(some: list[_Point], bigger: float = 1, **how: Any) -> None:
        areas = [bigger * widths.area(point.row) for point in some]
        axes.scatter(*_lines(some), s=areas, marker=marker, **how)

    draw(stopped, 0.8, facecolors="none", edgecolors=colour, linewidths=0.8, alpha=STOPPED, zorder=2)
    draw(off, color=colour, alpha=BEATEN, linewidths=0, zorder=2)
    draw(good, 1.3, color=colour, edgecolors="white", linewidths=0.6, zorder=4)
    return len(off)


def _split(points: list[_Point], first: list[bool]) -> tuple[list[_Point], list[_Point]]:
    pairs = list(zip(points, first, strict=True))
    return [point for point, is_first in pairs if is_first], [point for point, is_first in pairs if not is_first]


def _marks(several: bool, off: bool, stopped: bool) -> list[Line2D]:
    """The legend of what a line or a dot stands for, of those that are drawn."""
    marks = [
        (several, key("front of all variants", linestyle="-", **OVERALL)),
        (off, key("beaten by its own variant", color=INK, marker="o", alpha=BEATEN)),
        (stopped, key("not finished", color=INK, marker="o", markerfacecolor="none", alpha=STOPPED)),
    ]
    return [mark for drawn, mark in marks if drawn]


def _front(points: list[_Point]) -> list[_Point]:
    return [points[i] for i in front([point.place for point in points], TIE)]


def _lines(points: list[_Point]) -> tuple[list[float], list[float]]:
    """Their coordinates, for matplotlib."""
    return [l0 for _, (l0, _) in points], [fvu for _, (_, fvu) in points]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2 - 1]}…{name[-LONGEST_NAME // 2 :]}"


def _place(row: Row, cost: _Cost) -> Place | None:
    """L0 and the cost, where both are known and can stand on a logarithmic axis."""
    l0, y = number(row["metrics"], "l0"), cost.of(row["metrics"])
    return (l0, y) if l0 and y and l0 > 0 and y > 0 else None


class _Widths:
    """Larger marks for wider SAEs, where the sweep has several widths."""

    def __init__(self, rows: Sequence[Row], area: float) -> None:
        self.found = sorted({w for row in rows if (w := width(row))})
        self._areas = {w: area * (0.5 + 1.5 * i / max(1, len(self.found) - 1)) for i, w in enumerate(self.found)}
        self._usual = area

    def area(self, row: Row) -> float:
        """In points²."""
        own = width(row)
        return self._areas[own] if own and len(self.found) > 1 else self._usual

    def keys(self) -> list[Line2D]:
        if len(self.found) < 2:
            return []
        return [
            key(
                f"{plain(value)} latents" if field == "d_sae" else f"×{plain(value)}",
                color=INK,
                marker="o",
                markersize=self._areas[field, value] ** 0.5,
            )
            for field, value in self.found
        ]
