"""Rows that a function makes: what most sources that are no shards need."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class ComputedRows:
    """A `Rows` of which `fill` knows the values.

    `fill` must not refer to the data module: the reading thread holds it, and stops when the data module's streams go.
    """

    fill: Callable[[int, Tensor], None]
    """Fills its second argument (n, D), of `dtype`, with rows [start, start + n): thread-safe, and a pure function of the
    row numbers."""
    n_rows: int
    """Rows in all (N)."""
    d_in: int
    """Width of a row (D)."""
    fingerprint: str
    """Identity of the data: equal means the same rows in the same order."""
    source: dict[str, Any] = field(default_factory=dict)
    """Where the rows come from, as plain data; exports keep it."""
    dtype: torch.dtype = torch.float32
    """What `fill` writes, and what travels to the device."""

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        self.fill(start, out)

    def will_need(self, start: int, n: int) -> None:
        """Nothing to read ahead."""

    def where(self, row: int) -> str:
        return f"row {row}"
