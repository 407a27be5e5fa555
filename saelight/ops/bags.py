"""Products with a sparse (bags, F) matrix, given by its entries: sums of weighted table rows, and dot products at the
entries.

`torch.nn.functional.embedding_bag` is such a product, and several times faster than gathering, or than `index_add_` for
the transposed one. Shapes: E entries, sorted by bag; N bags; R rows of a table; D width.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from saelight.ops.dispatch import in_parts, kernels_for, loops_for
from saelight.ops.fallback import find_op

_DOTS = "aten._embedding_bag_per_sample_weights_backward"
_SUM = 0  # embedding_bag's mode, as its backward numbers it
_ROWS_AT_ONCE = 1 << 14


def weighted_sums(table_RD: Tensor, rows_E: Tensor, weights_E: Tensor, starts_N: Tensor) -> Tensor:
    """out[n] = Σ over the entries e of bag n of weights[e] · table[rows[e]]: (N, D).

    Args:
        starts_N: Where each bag's entries begin, int64 (N + 1,), the number of entries last.
    """
    if (kernels := kernels_for(table_RD)) is not None and table_RD.dtype == weights_E.dtype == torch.float32:
        return kernels.weighted_sums(table_RD, rows_E, weights_E, starts_N)
    return embedding_bag(rows_E, table_RD, starts_N, mode="sum", per_sample_weights=weights_E, include_last_offset=True)


def dots(left_ND: Tensor, bags_E: Tensor, right_RD: Tensor, rows_E: Tensor, starts_N: Tensor) -> Tensor:
    """out[e] = left[bags[e]] · right[rows[e]]: (E,)."""
    single = left_ND.dtype == right_RD.dtype == torch.float32
    if single and (kernels := kernels_for(left_ND)) is not None:
        return kernels.dots(left_ND, bags_E, right_RD, rows_E)
    if single and (loops := loops_for(left_ND)) is not None:
        out_E = left_ND.new_empty(len(rows_E))
        given = left_ND.contiguous().numpy(), bags_E.numpy(), right_RD.detach().numpy(), rows_E.numpy()
        in_parts(lambda low, high: loops.dots(*given, low, high, out_E.numpy()), len(rows_E))
        return out_E
    if (backward := find_op(_DOTS)) is not None:
        return backward(left_ND.contiguous(), right_RD, rows_E, starts_N[:-1], bags_E, _SUM)
    parts = zip(bags_E.split(_ROWS_AT_ONCE), rows_E.split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([(left_ND[b] * right_RD[r]).sum(1) for b, r in parts])
