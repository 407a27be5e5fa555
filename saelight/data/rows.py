"""What a stream reads: activation vectors by their number.

Shapes: N rows, D d_in.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """A fixed sequence of activation vectors. Reading is thread-safe and a pure function of the row numbers."""

    @property
    def n_rows(self) -> int:
        """Rows in all (N)."""

    @property
    def d_in(self) -> int:
        """Width of a row (D)."""

    @property
    def dtype(self) -> torch.dtype:
        """What the rows are stored in, and what `read` wants to fill."""

    @property
    def fingerprint(self) -> str:
        """Identity of the data: equal means the same rows in the same order."""

    @property
    def source(self) -> dict[str, Any]:
        """Where the rows come from (model, hook, ...), as plain data."""

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D), contiguous, of `dtype`, with rows [start, start + n)."""

    def will_need(self, start: int, n: int) -> None:
        """Hint that rows [start, start + n) are read next."""

    def where(self, row: int) -> str:
        """A row's place in words, for error messages."""
