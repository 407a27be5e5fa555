"""What rows add up to, and the normalisation that follows from it.

Shapes: D width of a row.
"""

import math
from typing import NamedTuple

from torch import Tensor

from saelight.errors import UserError
from saelight.ops.normalisation import Kind, Normalisation

_VARIES = 1e-12
"""The share of E‖x‖² from which E‖x - μ‖² is more than rounding."""


class Sums(NamedTuple):
    """What rows add up to, in float64."""

    rows: int
    sum_of_squares: float
    """Σ‖x‖²."""
    sum_D: Tensor
    """Σx: (D,) float64."""


def fit_normalisation(kind: Kind, sums: Sums, what: str) -> Normalisation:
    """The normalisation of this kind for rows with these sums.

    Args:
        what: What the rows are, for the message.

    Raises:
        UserError: No scale gives the rows the size that is wanted.
    """
    if kind == "none":
        return Normalisation()
    width, mean_square = len(sums.sum_D), sums.sum_of_squares / sums.rows
    if not 0 < mean_square < math.inf:
        raise UserError(
            f"data.normalise {kind} is impossible: the {what}' mean ‖x‖² is {mean_square}; check the data, or "
            "set data.normalise none"
        )
    if kind == "rms":
        return Normalisation(kind, math.sqrt(width / mean_square))
    mean_D = sums.sum_D / sums.rows
    variance = mean_square - mean_D.square().sum().item()
    if variance <= _VARIES * mean_square:
        raise UserError(
            f"data.normalise standard is impossible: the {what} are all the same row; check the data, or set "
            "data.normalise none"
        )
    return Normalisation(kind, math.sqrt(width / variance), mean_D)
