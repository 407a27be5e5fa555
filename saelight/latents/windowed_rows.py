"""Rows in pieces that cut none of the model's windows, as far as the data say where these begin.

Shapes: B rows of a piece, D d_in.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.finite import first_non_finite
from saelight.data.harvest.text_pass import TextPass
from saelight.data.source import Rows
from saelight.data.stored_rows import StoredRows
from saelight.errors import UserError

_ASSUMED = 128
"""Rows of a window, where the data have token ids and say nothing of positions or documents."""


class Piece(NamedTuple):
    """Consecutive rows."""

    start: int
    """Number of the first."""
    x_BD: Tensor
    """float32."""
    windows_B: np.ndarray
    """Equal for rows of one window, going up."""
    tokens_B: np.ndarray | None
    """int64; None where the data have none."""


class Columns(NamedTuple):
    """What is known of rows [start, start + B) beside their activations; None where it is not."""

    token_ids: np.ndarray | None
    positions: np.ndarray | None
    document_ids: np.ndarray | None


def columns(rows: Rows, start: int, n: int) -> Columns:
    """The columns of rows [start, start + n), int64."""
    if not isinstance(rows, StoredRows | TextPass):
        return Columns(None, None, None)
    there = {name: rows.column(name, start, n).numpy().astype(np.int64) for name in Columns._fields if name in rows.columns}
    return Columns(**{name: there.get(name) for name in Columns._fields})


def begins(start: int, n: int, known: Columns) -> np.ndarray:
    """Which of rows [start, start + n) begin a window: bool (n,). The first of them always does.

    A window begins where the position does not go up, or the document is another. Of rows whose order is not known to mean
    anything, each is a window of its own.
    """
    found = np.zeros(n, dtype=bool)
    if known.positions is None and known.document_ids is None:
        found[:] = True if known.token_ids is None else np.arange(start, start + n) % _ASSUMED == 0
    if known.positions is not None:
        found[1:] |= np.diff(known.positions) <= 0
    if known.document_ids is not None:
        found[1:] |= np.diff(known.document_ids) != 0
    found[:1] = True
    return found


def pieces(rows: Rows, first: int, n_rows: int, size: int) -> Iterator[Piece]:
    """Rows [first, n_rows), or as far as a text goes, `size` at a time at most. Each piece ends where a window does,
    but for windows longer than that; where it ends depends on where it begins alone.

    Raises:
        UserError: at a row that is not finite.
    """
    start = first
    while start < n_rows:
        if isinstance(rows, TextPass):
            # With one row more, an end that comes then is known.
            rows.will_need(start, min(size, n_rows - start) + 1)
            n_rows = min(n_rows, rows.n_rows)
        n = min(size, n_rows - start)
        if not n:
            return
        known = columns(rows, start, n)
        begins_B = begins(start, n, known)
        if start + n < n_rows and (later := np.flatnonzero(begins_B[1:])).size:
            n = int(later[-1]) + 1
        if start + n < n_rows:
            rows.will_need(start + n, min(size, n_rows - start - n))
        stored_BD = torch.empty(n, rows.d_in, dtype=rows.dtype)
        rows.read(start, stored_BD)
        if (bad := first_non_finite(stored_BD)) is not None:
            raise UserError(f"{rows.where(start + bad)} holds NaN or infinity: harvest again, or leave it out")
        tokens_B = None if known.token_ids is None else known.token_ids[:n]
        yield Piece(start, stored_BD.float(), np.cumsum(begins_B[:n]), tokens_B)
        start += n
