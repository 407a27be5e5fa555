"""How long rows are, exactly, and where a norm begins to be that of an attention sink.

Shapes: N rows, D d_in.
"""

import math

import torch
from torch import Tensor

MAX_NORM = 10.0
"""In medians: rows beyond are not to be trained on. Ordinary rows of language models stay below 5."""
_PIECE = 1 << 14


def row_squares(x_ND: Tensor) -> Tensor:
    """‖x‖² of every row (N, D), in float64: (N,)."""
    pieces = [piece.double().square().sum(1) for piece in x_ND.split(_PIECE)]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64)


def median_norm(squares_N: Tensor) -> float:
    """The median norm of rows whose ‖x‖² are given, those left out that are zero or not finite; 0 if none is left."""
    norms_N = squares_N[squares_N.isfinite() & (squares_N > 0)].sqrt()
    return norms_N.median().item() if len(norms_N) else 0.0


def norm_limit(squares_N: Tensor, max_norm: float | None) -> float:
    """The norm above which a row is not to be trained on: `max_norm` times the median. Infinite for None, and where no
    row has a norm."""
    median = median_norm(squares_N)
    return max_norm * median if max_norm is not None and median else math.inf


def ordinary(x_ND: Tensor, max_norm: float = MAX_NORM) -> Tensor:
    """The rows whose norm is at most `max_norm` times the median, nearly all of them: a few sinks would decide alone what
    mean and covariance are."""
    squares_N = row_squares(x_ND)
    return x_ND[squares_N <= norm_limit(squares_N, max_norm) ** 2]
