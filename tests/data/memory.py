"""Rows in memory, for the streams' tests."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from saelight.data.datamodule import RowsDataModule
from saelight.data.source import Opened, Span
from saelight.ops.normalisation import Kind


class MemoryRows:
    """A `Rows` over a tensor (N, D)."""

    source: dict = {}  # noqa: RUF012
    fingerprint = "memory"

    def __init__(self, x_ND: Tensor) -> None:
        self.x_ND = x_ND
        self.n_rows, self.d_in = x_ND.shape
        self.dtype = x_ND.dtype
        self.reads = 0

    def read(self, start: int, out: Tensor) -> None:
        assert start >= 0
        assert start + len(out) <= self.n_rows
        self.reads += 1
        out.copy_(self.x_ND[start : start + len(out)])

    def will_need(self, start: int, n: int) -> None:
        assert start >= 0
        assert start + n <= self.n_rows

    def where(self, row: int) -> str:
        return f"memory row {row}"


def numbered(n: int) -> MemoryRows:
    """Rows (n, 1) that hold their number."""
    return MemoryRows(torch.arange(n, dtype=torch.float32).unsqueeze(1))


@dataclass
class MemoryDataModule(RowsDataModule):
    """The common data module over numbered rows."""

    n: int
    n_val: int
    normalise: Kind = field(default="none", kw_only=True)

    def open(self) -> Opened:
        rows = numbered(self.n + self.n_val)
        return Opened(rows, self.n, Span(rows, self.n, rows.n_rows) if self.n_val else None)
