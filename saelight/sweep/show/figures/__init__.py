"""The figures of a sweep: functions from all its rows to a matplotlib Figure, or `NothingToDraw` saying what is missing.

Importing this needs matplotlib (`pip install 'saelight[plot]'`), and nothing of torch or Lightning.
"""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from saelight.sweep.show.figures.canvas import NothingToDraw as NothingToDraw
from saelight.sweep.show.figures.canvas import png as png
from saelight.sweep.show.figures.efficiency import throughput, time_loss
from saelight.sweep.show.figures.pareto import loss_recovered, pareto
from saelight.sweep.show.figures.selection import Row, number
from saelight.sweep.show.figures.sensitivity import sensitivity

FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "pareto": pareto,
    "loss_recovered": loss_recovered,
    "time_loss": time_loss,
    "sensitivity": sensitivity,
    "throughput": throughput,
}


def figures_of(rows: Sequence[Row]) -> dict[str, Callable[[Sequence[Row]], Figure]]:
    """The figures that are to be drawn of these rows: that of the model's loss only where somebody has measured it."""
    judged = any(number(row["metrics"], "loss_recovered") is not None for row in rows)
    return {name: draw for name, draw in FIGURES.items() if draw is not loss_recovered or judged}
