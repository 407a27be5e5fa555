"""One hook's rows of a text, as streams read them.

Shapes: N rows, D width of the hook's rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelight.data.harvest.model_stream import ModelStream


@dataclass(eq=False)
class HookRows:
    """A `Rows` that a model makes as they are read. Reading on from the last rows read is what it is for."""

    stream: ModelStream
    hook: str
    d_in: int
    """Width of a row (D)."""
    dtype: torch.dtype
    fingerprint: str
    """Identity of the rows: equal means the same weights and settings. The text is known by its bookmarks."""
    source: dict[str, Any]
    """Where the rows come from, as plain data; exports keep it."""

    @property
    def n_rows(self) -> int:
        """Rows in all (N)."""
        return self.stream.n_rows

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        self.stream.read(self.hook, start, out)

    def will_need(self, start: int, n: int) -> None:
        """Nothing to read ahead."""

    def where(self, row: int) -> str:
        return f"row {row} of {self.hook}"
