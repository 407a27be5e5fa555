"""The figures of a sweep: functions from all its rows to a matplotlib Figure, or `NothingToDraw` saying what is missing.

Importing this needs matplotlib (`pip install 'saelight[plot]'`), and nothing of torch or Lightning.
"""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from saelight.sweep.show.figures.canvas import NothingToDraw as NothingToDraw
from saelight.sweep.show.figures.canvas import png as png
from saelight.sweep.show.figures.efficiency import throughput, time_loss
from saelight.sweep.show.figures.pareto import pareto
from saelight.sweep.show.figures.selection import Row
from saelight.sweep.show.figures.sensitivity import sensitivity

FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "pareto": pareto,
    "time_loss": time_loss,
    "sensitivity": sensitivity,
    "throughput": throughput,
}
