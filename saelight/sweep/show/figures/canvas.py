"""How the figures of a sweep look: colours, scales, legends. No pyplot, whose figures live until they are closed."""

import io
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from saelight.sweep.show.figures.selection import Row, variants

# Okabe and Ito's colours (yellow is too pale on white), then three of Tol's: distinct to the colour-blind, best first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#999933", "#882255", "#7A5230")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, SMALL, FAINT, GRID = "#333333", "#666666", "#9a9a9a", "#e8e8e8"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.usetex": False,
    "text.parse_math": False,  # names and values are shown as they are
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150
ROUND = (1, 2, 2.5, 5, 10)  # steps between ticks
LOG_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))  # of each power of ten
SIZE = (8.6, 5.0)  # inches, of a figure with one panel
FVU = "FVU (fraction of variance unexplained)"


class NothingToDraw(Exception):
    """The rows hold nothing for this figure. The message says what is missing."""


class Look:
    """One colour and one shape per variant, by its place in the sweep: the same on every figure of these rows."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.variants = variants(rows)

    def colour(self, variant: str) -> str:
        """The variant's colour; after ten variants they begin again."""
        return COLOURS[self.variants.index(variant) % len(COLOURS)]

    def marker(self, variant: str) -> str:
        """The variant's shape, which tells it apart without its colour; after eight variants they begin again."""
        return MARKERS[self.variants.index(variant) % len(MARKERS)]

    def line(self, variant: str) -> str:
        """The variant's line style, which tells apart variants of one colour."""
        return DASHES[self.variants.index(variant) // len(COLOURS) % len(DASHES)]

    def key(self, variant: str, line: bool = False) -> Line2D:
        """The variant's entry in a legend: its mark, and its line where the figure draws lines."""
        style = self.line(variant) if line else "none"
        return key(variant, color=self.colour(variant), linestyle=style, marker=self.marker(variant))


def key(label: str, **look: Any) -> Line2D:
    """An entry in a legend."""
    usual: dict[str, Any] = {"linestyle": "none", "markersize": 5.5, "linewidth": 1.5}
    return Line2D([], [], label=label, **(usual | look))


def legend(figure: Figure, sections: dict[str, list[Line2D]]) -> None:
    """One legend beside the axes, in titled sections; those without entries are left out."""
    entries: list[Line2D] = []
    titles: list[int] = []
    for title, keys in sections.items():
        if keys:
            titles.append(len(entries))
            entries += [key(title), *keys, key("")]
    drawn = figure.legend(handles=entries[:-1], loc="outside right upper", handlelength=1.6, labelspacing=0.45)
    for i in titles:
        drawn.get_texts()[i].set(color=SMALL, fontstyle="italic")


def new_figure(title: str, notes: Iterable[str], size: tuple[float, float]) -> Figure:
    """An empty figure of `size` inches with a title, and notes in small print at its foot."""
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.07))
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    print_width = int(size[0] * 17)  # characters of the small print to the inch
    small_print = textwrap.fill(". ".join(filter(None, notes)) + ".", print_width)
    figure.supxlabel(small_print, x=0.012, ha="left", fontsize=8, color=SMALL)
    return figure


def census(rows: Iterable[Row]) -> str:
    """`54 points: 50 finished, 4 retired`."""
    counts = Counter(row["state"] for row in rows)
    return f"{counts.total()} point{'s' * (counts.total() > 1)}: " + ", ".join(f"{n} {name}" for name, n in counts.items())


def wide(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows these values better: all positive, and some times apart."""
    return min(values) > 0 and max(values) >= 5 * min(values)


def scale(axes: Axes, which: str, values: Sequence[float], log: bool, ticks: Sequence[float] | None = None) -> None:
    """Fit an axis (`which`: x or y) to `values`, with plain numbers as tick labels, at `ticks` if these are given."""
    axis: Axis = getattr(axes, f"{which}axis")
    low, high = min(values), max(values)
    if log:
        getattr(axes, f"set_{which}scale")("log")
        margin = (high / low) ** 0.06 if high > low else 1.5
        limits = low / margin, high * margin
        axis.set_minor_locator(NullLocator())
        grid = axes.get_gridspec()
        room = 5 if which == "x" and grid is not None and grid.ncols > 1 else 9  # labels that fit
        steps = next((steps for steps in LOG_STEPS if _ticks(steps, *limits) <= room), LOG_STEPS[-1])
        few = limits[1] < 2 * limits[0]
        axis.set_major_locator(MaxNLocator(5, steps=ROUND) if few else LogLocator(subs=steps))
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1
        limits = low - margin if low else 0, high + margin
        axis.set_major_locator(MaxNLocator(6, steps=ROUND))
    if ticks:
        axis.set_major_locator(FixedLocator(_apart(ticks, math.log(high / low) if log else high - low, log)))
    getattr(axes, f"set_{which}lim")(*limits)
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def _ticks(steps: Sequence[float], low: float, high: float) -> int:
    """How many ticks of these steps lie on a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return sum(low <= step * 10**power <= high for power in powers for step in steps)


def _apart(ticks: Sequence[float], span: float, log: bool) -> list[float]:
    """Those of the sorted `ticks` whose labels do not run into each other on an axis of this span."""
    kept = list(ticks[:1])
    for tick in ticks[1:]:
        if (math.log(tick / kept[-1]) if log else tick - kept[-1]) > 0.13 * span:
            kept.append(tick)
    return kept


def plain(value: float) -> str:
    """A number as people write it: 0.0003, 1e-5, 3,072, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}".replace("e-0", "e-")


def dot_area(n: int) -> float:
    """Area of a mark in points², smaller where there are many."""
    return min(44.0, max(13.0, 44.0 * (30 / max(n, 1)) ** 0.5))


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """The style of these figures while they are built and drawn, whatever the user's matplotlibrc says."""
    with rc_context(STYLE):
        yield
