"""The figures of a sweep: functions from all its rows to a matplotlib Figure, or `NothingToDraw` saying what is missing.

Importing this needs matplotlib (`pip install 'saelight[plot]'`), and nothing of torch or Lightning.
"""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from saelight.sweep.figures.canvas import NothingToDraw as NothingToDraw
from saelight.sweep.figures.canvas import png as png
from saelight.sweep.figures.efficiency import throughput, time_loss
from saelight.sweep.figures.pareto import pareto
from saelight.sweep.figures.rows import Row
from saelight.sweep.figures.sensitivity import sensitivity

FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "pareto": pareto,
    "time_loss": time_loss,
    "sensitivity": sensitivity,
    "throughput": throughput,
}
