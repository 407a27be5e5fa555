"""Which rows an SAE was not trained on, by what its source notes of the harvest's filter (`data/row_filter.py`).

Shapes: N rows, D their width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from saelight.data.norms import norm_limit, row_squares
from saelight.data.row_filter import FIRST_ROWS
from saelight.data.stored_rows import FILTERS


@dataclass(frozen=True)
class RowRule:
    """A filter's settings; as they are, they keep every row."""

    max_norm: float | None = None
    """In medians: rows that are longer are left out."""
    skip_positions: int = 0
    """At the beginning of a window."""
    drop_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Self:
        """The rule that a source notes; none where it notes none, or nothing that is one."""
        max_norm, skip, drop = (source.get(key) for key in FILTERS)
        return cls(
            float(max_norm) if isinstance(max_norm, int | float) and not isinstance(max_norm, bool) else None,
            skip if isinstance(skip, int) else 0,
            tuple(token for token in drop if isinstance(token, int)) if isinstance(drop, list) else (),
        )

    def limit(self, x_ND: Tensor, ids_N: Tensor, positions_N: Tensor) -> float:
        """The norm beyond which rows are left out: from the first 8,192 rows that nothing else leaves out."""
        kept_N = ~self.excludes(x_ND, ids_N, positions_N, math.inf)
        return norm_limit(row_squares(x_ND[kept_N][:FIRST_ROWS].cpu()), self.max_norm)

    def excludes(self, x_ND: Tensor, ids_N: Tensor, positions_N: Tensor, limit: float) -> Tensor:
        """Which rows are left out: (N,) bool."""
        excluded_N = (positions_N < self.skip_positions) | (x_ND.norm(dim=1) > limit)
        if self.drop_tokens:
            excluded_N |= torch.isin(ids_N, torch.tensor(self.drop_tokens, device=ids_N.device))
        return excluded_N
