"""Documents that are kept from training, and their rows, which stay in memory.

Shapes: N rows, D width of a hook's rows.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from saelight.bars import bar
from saelight.data.computed_rows import ComputedRows
from saelight.data.harvest.text_model import TextModel
from saelight.data.row_filter import Limit, Piece, RowFilter
from saelight.errors import UserError


def held_out(model: TextModel, rows: int) -> list[tuple[int, str | list[int]]]:
    """The first documents of the text, as many as have so many rows before a filter of norms.

    Raises `UserError` when none is left to train on.
    """
    documents, chosen, found = iter(model.documents), [], 0
    while found < rows and (document := next(documents, None)) is not None:
        chosen.append(document)
        found += sum(window.rows for window in model.cut([document]))
    if next(documents, None) is None:
        beside = f" beside the {len(chosen):,} documents that data.val_rows {rows:,} holds out" if chosen else ""
        raise UserError(
            f"the text has nothing to train on{beside}; name more text" + (", or lower data.val_rows" if chosen else "")
        )
    return chosen


def rows_of(
    model: TextModel,
    documents: list[tuple[int, str | list[int]]],
    at_most: int,
    limits: Mapping[str, Limit],
    fingerprint: str,
) -> dict[str, ComputedRows]:
    """The rows of some documents, in memory, by hook. Raises `UserError` when there are none."""
    row_filter = RowFilter(**model.rows_kept, at_most=at_most, limits=limits)
    pieces: list[Piece] = []
    with bar(total=at_most, unit=" rows", desc="validation rows") as progress:
        pieces.extend(model.pieces(documents, 0, row_filter, done=progress.update))
    if not sum(piece.rows for piece in pieces):
        raise UserError("the documents held out for validation have no rows that are kept; set data.val_rows 0, or more")
    together = {hook: torch.cat([piece.x[hook] for piece in pieces]) for hook in pieces[0].x}
    return {
        hook: ComputedRows(partial(_copy, x_ND), len(x_ND), x_ND.shape[1], fingerprint, dtype=x_ND.dtype)
        for hook, x_ND in together.items()
    }


def _copy(x_ND: Tensor, start: int, out: Tensor) -> None:
    out.copy_(x_ND[start : start + len(out)])
