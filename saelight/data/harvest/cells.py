"""What documents are in files of rows: the column that holds them, and what a cell of it may be."""

from collections.abc import Iterable, Sequence
from typing import Any

from saelight.errors import UserError, did_you_mean

Content = str | list[int]
"""A document: text, or token ids."""

TEXT_COLUMNS, IMAGE_COLUMNS = ("text", "input_ids"), ("image", "img")
"""Which column is read where none is named: the first of these that is there."""
_MOST = 20  # columns that a message lists


def chosen_column(named: str | None, there: Iterable[str], place: object, usual: Sequence[str] = TEXT_COLUMNS) -> str:
    """The column that is named, or else the first usual one. Raises `UserError` listing those that are there."""
    there = list(there)
    wanted = usual if named is None else (named,)
    if found := [name for name in wanted if name in there]:
        return found[0]
    listed = (", ".join(there[:_MOST]) + (", …" if len(there) > _MOST else "")) or "none"
    if named is None:
        raise UserError(f"{place} has no column {' or '.join(wanted)}, only {listed}; choose one with `column`")
    raise UserError(f"{place} has no column {named!r}, only {listed}{did_you_mean(named, there) or '; choose one of these'}")


def content(value: Any, column: str, place: object) -> str | list[int] | None:
    """A cell's document; None where it is empty. Raises `UserError` for what is neither text nor a list of token ids."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        ids = list(value)
        if odd := [item for item in ids if type(item) is not int]:
            raise UserError(f"{place}: column {column!r} holds a list with {_shown(odd[0])}; token ids are whole numbers")
        return ids or None
    raise UserError(f"{place}: column {column!r} holds {_shown(value)}; a document is a text or a list of token ids")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
