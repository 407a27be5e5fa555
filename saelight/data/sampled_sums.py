"""Sums of a source that does not know its own: of a sample that its seed decides, or of its first rows.

Shapes: N rows, D width of a row.
"""

import torch

from saelight.data.moments import Sums
from saelight.data.source import Rows
from saelight.data.stream.order import Blocks, cut, sample

_SAMPLE = 1 << 16


def sampled_sums(rows: Rows, n_rows: int, seed: int, n: int = _SAMPLE) -> Sums:
    """The sums of n of the first `n_rows` rows (all, when there are fewer), in blocks that the seed decides."""
    return _sums_of(rows, sample(cut(0, n_rows), n, seed))


def first_sums(rows: Rows, n: int) -> Sums:
    """The sums of the first n rows."""
    return _sums_of(rows, cut(0, n))


def _sums_of(rows: Rows, blocks: Blocks) -> Sums:
    squares, sum_D = 0.0, torch.zeros(rows.d_in, dtype=torch.float64)
    for start, size in zip(*blocks, strict=True):
        x_ND = torch.empty(int(size), rows.d_in, dtype=rows.dtype)
        rows.read(int(start), x_ND)
        x_ND = x_ND.double()
        squares += x_ND.square().sum().item()
        sum_D += x_ND.sum(0)
    return Sums(blocks.rows, squares, sum_D)
