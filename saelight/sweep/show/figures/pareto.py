"""Sparsity against reconstruction: what each variant's SAEs reach, and which of them nothing else beats."""

from collections.abc import Sequence

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

OVERALL = {"color": "#dedede", "linewidth": 7.0, "solid_capstyle": "round", "solid_joinstyle": "round"}
BEATEN = 0.28  # opacity
STOPPED = 0.65


@styled()
def pareto(rows: Sequence[Row]) -> Figure:
    """L0 against FVU, with each variant's front: its finished points that none of its others beats in both."""
    look = Look(rows)
    places = {i: place for i, row in enumerate(rows) if (place := _place(row))}
    done = [i for i in places if finished(rows[i])]
    stopped = [i for i in places if not finished(rows[i])]
    if not done:
        raise NothingToDraw("no finished point has an L0 and an FVU above 0")
    left_out = len(rows) - len(places)
    figure = new_figure(
        "Sparsity against reconstruction",
        [census(rows), f"{left_out} without an L0 or FVU left out" if left_out else ""],
        SIZE,
    )
    axes, area, widths = figure.subplots(), dot_area(len(places)), _Widths([rows[i] for i in places])

    def dots(members: list[int], bigger: float = 1, **dots_look) -> None:
        for marker in MARKERS:
            if chosen := [places[i] for i in members if widths.marker(rows[i]) == marker]:
                axes.scatter(*zip(*chosen, strict=True), s=bigger * area, marker=marker, **dots_look)

    shown = [name for name in look.variants if any(variant(rows[i]) == name for i in places)]
    if len(shown) > 1:
        axes.plot(*zip(*[places[done[j]] for j in front([places[i] for i in done])], strict=True), zorder=1, **OVERALL)
    fronts = 0
    for name in shown:
        colour = look.colour(name)
        own = [i for i in done if variant(rows[i]) == name]
        best = [own[j] for j in front([places[i] for i in own])]
        beaten = [i for i in own if i not in set(best)]
        fronts += len(best)
        axes.plot([places[i][0] for i in best], [places[i][1] for i in best], look.line(name), color=colour, zorder=3)
        dots(
            [i for i in stopped if variant(rows[i]) == name],
            0.8,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.8,
            alpha=STOPPED,
            zorder=2,
        )
        dots(beaten, color=colour, alpha=BEATEN, linewidths=0, zorder=2)
        dots(best, 1.3, color=colour, edgecolors="white", linewidths=0.6, zorder=4)
    scale(axes, "x", [l0 for l0, _ in places.values()], log=True)
    scale(axes, "y", [fvu for _, fvu in places.values()], log=True)
    axes.set_xlabel("L0 (active latents per token)")
    axes.set_ylabel(FVU)

    marks = [key("front of all variants", linestyle="-", **OVERALL)] if len(shown) > 1 else []
    marks += [key("beaten by its own variant", color=INK, marker="o", alpha=BEATEN)] if fronts < len(done) else []
    marks += [key("not finished", color=INK, marker="o", markerfacecolor="none", alpha=STOPPED)] if stopped else []
    legend(figure, {"variant": [look.key(name, line=True) for name in shown], "width": widths.keys(), "mark": marks})
    return figure


def _place(row: Row) -> tuple[float, float] | None:
    """(L0, FVU) where both are known and can stand on a logarithmic axis."""
    l0, fvu = number(row["metrics"], "l0"), number(row["metrics"], "fvu")
    return (l0, fvu) if l0 and fvu and l0 > 0 and fvu > 0 else None


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
