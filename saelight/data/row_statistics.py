"""What rows are like, as far as it decides whether an SAE's numbers mean what they seem to: how their norms are spread, and
which dimensions say nothing.

Norms come from the shards' own column where there is one, else from a seeded sample, as everything else does.

Shapes: N rows, D d_in.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.norms import median_norm, row_squares
from saelight.data.shards.reader import NORMS
from saelight.data.source import Rows
from saelight.data.stored_rows import StoredRows
from saelight.data.stream.order import cut, sample

SAMPLE_ROWS = 8192
"""Rows that are read where no column tells."""
_NORMS = 1 << 20


class Norms:
    """The distribution of row norms: of all rows, or of `looked_at` of them."""

    def __init__(self, squares_N: Tensor, of_rows: int) -> None:
        self._squares_N = squares_N.double().sort().values
        self.looked_at, self.of_rows = len(squares_N), of_rows
        self.median = median_norm(squares_N)
        self.total = float(self._squares_N.sum())

    def quantile(self, q: float) -> float:
        """The norm that a share `q` of the rows does not exceed."""
        return math.sqrt(self._squares_N[max(0, math.ceil(q * len(self._squares_N)) - 1)])

    def top_share(self, fraction: float) -> float:
        """The share of Σ‖x‖² that the longest `fraction` of the rows holds, one row at least."""
        count = max(1, round(fraction * len(self._squares_N)))
        return float(self._squares_N[-count:].sum()) / self.total if self.total else 0.0

    def above(self, times: float) -> tuple[int, float]:
        """How many of the rows looked at have a norm above `times` the median, and their share of Σ‖x‖²."""
        long_N = self._squares_N[self._squares_N > (times * self.median) ** 2]
        return len(long_N), float(long_N.sum()) / self.total if self.total else 0.0

    def __str__(self) -> str:
        whole = self.looked_at == self.of_rows
        return f"all {self.of_rows:,} rows" if whole else f"a sample of {self.looked_at:,} of {self.of_rows:,} rows"


class Dimensions(NamedTuple):
    """What single dimensions of some rows say."""

    constant: int
    """Dimensions with the same value in every row."""
    duplicated: int
    """Dimensions, not constant, that equal an earlier one in every row."""


def constant(x_ND: Tensor) -> Tensor:
    """Which dimensions have the same value in every row of (N, D): bool (D,)."""
    return (x_ND == x_ND[0]).all(0)


def dimensions(x_ND: Tensor) -> Dimensions:
    """Constant and duplicated dimensions of rows (N, D)."""
    constant_D = constant(x_ND)
    columns = np.ascontiguousarray(x_ND[:, ~constant_D].float().T.numpy())
    return Dimensions(int(constant_D.sum()), len(columns) - len({column.tobytes() for column in columns}))


def read_sample(rows: Rows, start: int, stop: int, n: int = SAMPLE_ROWS, seed: int = 0) -> Tensor:
    """At most `n` of the rows [start, stop), seeded blocks of them, in their order: (n, D), as stored."""
    blocks = sample(cut(start, stop), n, seed)
    x_ND, done = torch.empty(blocks.rows, rows.d_in, dtype=rows.dtype), 0
    spans = [*zip(*(side.tolist() for side in blocks), strict=True)]
    for first, size in spans:
        rows.will_need(first, size)
    for first, size in spans:
        rows.read(first, x_ND[done : done + size])
        done += size
    return x_ND


def read_norms(rows: Rows, start: int, stop: int, seed: int = 0) -> Norms | None:
    """The norms of rows [start, stop) from the column of shards that have it, of more than a million those of seeded blocks;
    None where there is no column."""
    if not isinstance(rows, StoredRows) or NORMS not in rows.columns:
        return None
    blocks = sample(cut(start, stop), _NORMS, seed)
    if blocks.rows == stop - start:
        norms_N = rows.column(NORMS, start, stop - start)
    else:
        spans = [*zip(*(side.tolist() for side in blocks), strict=True)]
        for first, size in spans:
            rows.will_need(first, size, NORMS)
        norms_N = torch.cat([rows.column(NORMS, first, size) for first, size in spans])
    return Norms(norms_N.double().square(), stop - start)


def norms_of(x_ND: Tensor, of_rows: int) -> Norms:
    """The norms of a sample (N, D) of `of_rows` rows."""
    return Norms(row_squares(x_ND), of_rows)


def mean_over_spread(square: float, sum_D: Tensor, count: int) -> float:
    """γ = ‖μ‖/σ, σ² the mean of ‖x - μ‖², from Σ‖x‖², Σx (D,) and the number of rows. Infinite for rows without spread."""
    mean_square = (sum_D.double() / count).square().sum().item()
    variance = square / count - mean_square
    return math.sqrt(mean_square / variance) if variance > 1e-13 * mean_square else math.inf
