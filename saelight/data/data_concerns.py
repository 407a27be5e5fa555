"""Data that would make an SAE's numbers untrue, seen before training: what is wrong, and the remedy.

Shapes: N rows, D width of a side.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from saelight.data.norms import MAX_NORM
from saelight.data.row_statistics import Norms, constant, norms_of, read_norms, read_sample
from saelight.data.shards.reader import ShardedRows
from saelight.data.source import Rows, Source, sides
from saelight.data.stored_rows import StoredRows
from saelight.errors import UserError

_SHARE = 0.05
"""Of Σ‖x‖²: what a few rows may hold before FVU is about them."""


class _Side(NamedTuple):
    """The inputs or the targets, of training or of validation rows."""

    what: str
    norms: Norms
    path: str | None
    """Where they are stored, if they are."""
    foreign: bool = False
    """Stored as no shards."""


def concerns(source: Source | None, x_ND: Tensor, y_ND: Tensor | None = None) -> list[str]:
    """What the user should know of the data before SAEs train on them, a line each.

    Args:
        source: Where the data come from; None where that is unknown.
        x_ND: Some training rows (N, d_in), looked at where no column tells.
        y_ND: Of transcoders, their targets (N, d_out).

    Raises:
        UserError: All rows are equal, so that there is nothing to learn.
    """
    named = {"activations": x_ND.cpu()} | ({} if y_ND is None else {"targets": y_ND.cpu()})
    flat = [_flat(what, side_ND) for what, side_ND in named.items()]
    sinks = [_sinks(side, paired=len(named) > 1) for side in _sides(source, named)]
    return [line for line in flat + sinks if line is not None]


def _flat(what: str, x_ND: Tensor) -> str | None:
    same, width = int(constant(x_ND).sum()), x_ND.shape[1]
    if len(x_ND) > 1 and same == width:
        raise UserError(f"all {what} are equal ({len(x_ND):,} rows looked at): there is nothing to learn; check the hook")
    if len(x_ND) > 1 and same:
        return (
            f"{same:,} of {width:,} dimensions of the {what} are the same in all of {len(x_ND):,} rows: they have no "
            "variance to explain; check the hook if you did not expect that"
        )
    return None


def _sinks(side: _Side, paired: bool) -> str | None:
    count, share = side.norms.above(MAX_NORM)
    if not share > _SHARE:
        return None
    folder = "FOLDER_OF_BOTH" if paired else side.path
    first = "write both into one folder with `saelight shards convert`, then " if paired and side.foreign else ""
    remedy = (
        f"{first}`saelight shards filter {folder} OUT` writes shards without them (a harvest leaves them out by max_norm)"
        if side.path
        else "leave them out of the source (saelight.data.row_filter.RowFilter does)"
    )
    return (
        f"{count:,} of {side.norms} of the {side.what} are longer than {MAX_NORM:g} times the median norm and hold "
        f"{share:.1%} of Σ‖x‖²: loss and FVU would be about these alone, whatever becomes of the others. {remedy}"
    )


def _sides(source: Source | None, named: dict[str, Tensor]) -> Iterator[_Side]:
    """What is trained and validated on, each with its norms: from the column, or of a sample."""
    opened = None if source is None else source.opened
    for side, (what, x_ND) in enumerate(named.items()):
        rows = None if opened is None else sides(opened.rows)[side]
        n = opened.n_train_rows if opened else len(x_ND)
        norms = (None if rows is None else read_norms(rows, 0, n)) or norms_of(x_ND, n)
        yield _Side(what, norms, _path(rows), _is_foreign(rows))
        if opened and opened.val and opened.val.rows.fingerprint != opened.rows.fingerprint:
            val = sides(opened.val.rows)[side]
            assert val is not None
            span = opened.val.start, opened.val.stop
            norms = read_norms(val, *span) or norms_of(read_sample(val, *span), span[1] - span[0])
            yield _Side(f"validation {what}", norms, _path(val), _is_foreign(val))


def _path(rows: Rows | None) -> str | None:
    return str(rows.path) if isinstance(rows, StoredRows) else None


def _is_foreign(rows: Rows | None) -> bool:
    return isinstance(rows, StoredRows) and not isinstance(rows, ShardedRows)
