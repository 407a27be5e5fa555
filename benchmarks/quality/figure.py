"""FVU against measured L0, a panel for each variant, a line for each library. Needs matplotlib."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.quality.grid import VARIANTS
from benchmarks.quality.runs import OURS, Result
from benchmarks.quality.summary import entries
from saelight.sweep.show.figures.canvas import COLOURS, FVU, MARKERS, key, legend, new_figure, png, scale, styled

__all__ = ["fronts", "png"]

LIBRARIES = (OURS, "sae_lens", "dictionary_learning", "sparsify")


def fronts(name: str, results: Sequence[Result]) -> Figure:
    """The best rate's FVU of every library at every L0."""
    run = results[0].run
    variants = [variant for variant in VARIANTS if any(r.run.variant == variant for r in results)]
    rows = -(-len(variants) // 3)
    points = {variant: _points(results, variant) for variant in variants}
    with styled():
        notes = [f"{run.tokens:,} rows, {run.d_sae} latents, batches of {run.batch}; each library at its own best lr"]
        figure = new_figure(f"Reconstruction at equal L0, {name}", notes, (9.6, 1.2 + 2.7 * rows))
        panels = figure.subplots(rows, min(len(variants), 3), squeeze=False)
        for axes, variant in zip(panels.flat, variants, strict=False):
            for library, front in points[variant].items():
                i = LIBRARIES.index(library)
                look = {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 5, "linewidth": 1.6 - 0.4 * bool(i)}
                axes.plot(*zip(*front, strict=True), zorder=3 - 0.1 * i, **look)
            found = [point for front in points[variant].values() for point in front]
            scale(axes, "x", [l0 for l0, _ in found], log=True, ticks=sorted({l0 for l0, _ in found}))
            scale(axes, "y", [fvu for _, fvu in found], log=True)
            axes.set_title(variant, loc="left", fontsize=9)
            axes.set_xlabel("L0")
        for axes in panels.flat[len(variants) :]:
            axes.remove()
        for row in panels:
            row[0].set_ylabel(FVU if rows == 1 else "FVU")
        shown = [library for library in LIBRARIES if any(library in front for front in points.values())]
        keys = [key(library, color=COLOURS[i], marker=MARKERS[i], linestyle="-") for i, library in enumerate(LIBRARIES)]
        legend(figure, {"library": [k for library, k in zip(LIBRARIES, keys, strict=True) if library in shown]})
    return figure


def _points(results: Sequence[Result], variant: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for l0 in sorted({r.run.l0 for r in results if r.run.variant == variant}):
        for library, entry in entries(results, variant, l0).items():
            found.setdefault(library, []).append((l0, entry.fvu))
    return found
