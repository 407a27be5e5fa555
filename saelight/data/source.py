"""What a source of activations is to the streams and data modules: rows, addressed by number.

Shapes: N rows, D d_in.
"""

from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """A fixed sequence of activation vectors. Reading is thread-safe and a pure function of the row numbers."""

    n_rows: int
    """Rows in all (N)."""
    d_in: int
    """Width of a row (D)."""
    dtype: torch.dtype
    """What the rows are stored in, and what `read` wants to fill."""
    fingerprint: str
    """Identity of the data: equal means the same rows in the same order."""
    source: dict
    """Where the rows come from (model, hook, ...), as plain data."""

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D), contiguous, of `dtype`, with rows [start, start + n)."""

    def will_need(self, start: int, n: int) -> None:
        """Hint that rows [start, start + n) are read next."""

    def where(self, row: int) -> str:
        """A row's place in words, for error messages."""
