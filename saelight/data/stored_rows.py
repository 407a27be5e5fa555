"""Rows that lie in files: what shards and foreign activations have in common, beyond what every source has.

Shapes: N rows, D d_in.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.data.moments import Sums
from saelight.data.remote.remote_url import Url

FILTERS = ("max_norm", "skip_positions", "drop_tokens")
"""Settings of `RowFilter`, as its reports and sources have them."""


class Known(NamedTuple):
    """What is known of stored rows as a whole."""

    model: str
    hook: str
    notes: dict[str, Any]
    """Further provenance, plain data."""
    files: int
    """Files that the rows lie in."""
    bytes: int
    """Their size."""
    dropped: Sequence[Mapping[str, Any]]
    """Reports on rows that were left out on the way here (`Dropped.report`), the oldest first."""


class StoredRows(ABC):
    """A `Rows` in files, with columns beside it."""

    path: Path | Url
    """Where they are, as the user says it."""
    n_rows: int
    d_in: int
    dtype: torch.dtype

    @property
    @abstractmethod
    def columns(self) -> Collection[str]:
        """Which of token_ids, positions, document_ids and norms there are."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of the rows: equal means the same ones in the same order."""

    @property
    @abstractmethod
    def known(self) -> Known:
        """Provenance, files, and what was left out."""

    @property
    @abstractmethod
    def sums(self) -> Sums | None:
        """The exact sums over all rows; None where nobody has added them up."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows that are held in memory."""
        return 0

    @property
    def source(self) -> dict[str, Any]:
        """Provenance: model, hook, dtype, rows, what was left out on the way here, and whatever else is noted."""
        dtype, known = str(self.dtype).removeprefix("torch."), self.known
        filters = {key: report[key] for report in known.dropped for key in FILTERS if report.get(key)}
        return known.notes | filters | {"model": known.model, "hook": known.hook, "dtype": dtype, "rows": self.n_rows}

    @abstractmethod
    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D), contiguous, of `dtype`, with rows [start, start + n)."""

    @abstractmethod
    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of one of `columns`: (n,)."""

    @abstractmethod
    def will_need(self, start: int, n: int, column: str | None = None) -> None:
        """Hint that rows [start, start + n), or these of a column, are read next, by one `read` or `column`, after those
        hinted at before."""

    @abstractmethod
    def where(self, row: int) -> str:
        """A row's file and place in it, for messages."""
