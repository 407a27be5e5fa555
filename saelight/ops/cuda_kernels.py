"""The two products of `bags.py` on CUDA, in Triton, which torch's CUDA builds bring along.

    weighted_sums  out[n] = Σ over the entries e of bag n of weights[e] · table[rows[e]]
    dots           out[e] = left[bags[e]] · right[rows[e]]

Sums run in one order, without atomic additions: the same inputs give the same bits. Everything is float32. The references
are torch's own operators; the tests run both on the CPU, in Triton's interpreter. Shapes: E entries, N bags, R rows of a
table, D width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ENTRIES = 16  # of a bag looked at together: one alone would wait for memory most of the time
_ENTRIES_OF_DOTS = 32
_WIDTH = 128


@triton.jit
def _weighted_sums(table, rows, weights, starts, out, D, ENTRIES: tl.constexpr, WIDTH: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    first, last = tl.load(starts + bag), tl.load(starts + bag + 1)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    for start in range(first, last, ENTRIES):
        entries = start + tl.arange(0, ENTRIES)
        row = tl.load(rows + entries, mask=entries < last, other=0)
        weight = tl.load(weights + entries, mask=entries < last, other=0.0)
        inside = (entries < last)[:, None] & (columns < D)[None, :]
        tile = tl.load(table + row[:, None] * D + columns[None, :], mask=inside, other=0.0)
        total += tl.sum(tile * weight[:, None], axis=0)
    tl.store(out + bag * D + columns, total, mask=columns < D)


@triton.jit
def _dots(left, bags, right, rows, out, E, D, ENTRIES: tl.constexpr, WIDTH: tl.constexpr):
    entries = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    bag = tl.load(bags + entries, mask=entries < E, other=0)
    row = tl.load(rows + entries, mask=entries < E, other=0)
    total = tl.zeros((ENTRIES,), dtype=tl.float32)
    for start in range(0, D, WIDTH):
        columns = start + tl.arange(0, WIDTH)
        inside = (entries < E)[:, None] & (columns < D)[None, :]
        a = tl.load(left + bag[:, None] * D + columns[None, :], mask=inside, other=0.0)
        b = tl.load(right + row[:, None] * D + columns[None, :], mask=inside, other=0.0)
        total += tl.sum(a * b, axis=1)
    tl.store(out + entries, total, mask=entries < E)


def weighted_sums(table_RD: Tensor, rows_E: Tensor, weights_E: Tensor, starts_N: Tensor) -> Tensor:
    """As `bags.weighted_sums`: (N, D)."""
    bags, width = len(starts_N) - 1, table_RD.shape[1]
    out_ND = torch.empty(bags, width, dtype=torch.float32, device=table_RD.device)
    grid = (bags, triton.cdiv(width, _WIDTH))
    _weighted_sums[grid](
        table_RD.contiguous(), rows_E, weights_E.contiguous(), starts_N, out_ND, width, ENTRIES=_ENTRIES, WIDTH=_WIDTH
    )
    return out_ND


def dots(left_ND: Tensor, bags_E: Tensor, right_RD: Tensor, rows_E: Tensor) -> Tensor:
    """As `bags.dots`: (E,)."""
    out_E = torch.empty(len(rows_E), dtype=torch.float32, device=left_ND.device)
    if len(rows_E):
        _dots[(triton.cdiv(len(rows_E), _ENTRIES_OF_DOTS),)](
            left_ND.contiguous(),
            bags_E,
            right_RD.contiguous(),
            rows_E,
            out_E,
            len(rows_E),
            left_ND.shape[1],
            ENTRIES=_ENTRIES_OF_DOTS,
            WIDTH=_WIDTH,
        )
    return out_E
