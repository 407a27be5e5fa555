"""Shards without the rows that are not to be trained on, from shards that have them.

Shapes: N rows, D d_in.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from saelight.data.dropped import in_words
from saelight.data.foreign.opening import open_rows
from saelight.data.pairs import check_same_tokens
from saelight.data.remote.remote_url import Url, located
from saelight.data.row_filter import Piece, RowFilter
from saelight.data.shards.disk import cannot_read, check_free, is_there, writing
from saelight.data.shards.metadata import METADATA
from saelight.data.shards.reader import TOKEN_COLUMNS, ShardedRows
from saelight.data.shards.writer import ShardWriter
from saelight.data.stored_rows import StoredRows
from saelight.files import replacing

_ROWS = 8192


def filter_shards(src: str | Path | Url, out: str | Path | Url, row_filter: RowFilter) -> str:
    """Write the rows of `src` that pass to the new folder `out`; what was dropped, in words.

    A folder of folders of shards, as a harvest of several hooks makes it, gives such a folder again: a row that one of them
    drops is dropped from all.

    Raises:
        UserError: The shards cannot be read, are not of the same tokens, or lack a column that the filter needs; or `out`
            exists.
    """
    sources, out = _open(located(src)), located(out)
    check_free(out)
    with _whole(out) as folder, contextlib.ExitStack() as stack:
        writers = {}
        for name, rows in sources.items():
            known = rows.known
            filtered = [*known.notes.get("filtered", []), row_filter.settings]
            writers[name] = stack.enter_context(
                ShardWriter(
                    folder / name if name else folder,
                    model=known.model,
                    hook=known.hook,
                    dtype=rows.source["dtype"],
                    d_in=rows.d_in,
                    source=known.notes | {"filtered": filtered},
                )
            )
        for piece in row_filter(_pieces(sources)):
            for name, writer in writers.items():
                writer.append(piece.x[name], **piece.columns)
        for name, writer in writers.items():
            writer.dropped = [*sources[name].known.dropped, row_filter.report(name)]
        lines = [f"dropped from {sources[name].path}: {in_words(writer.dropped[-1])}" for name, writer in writers.items()]
    return "\n".join([f"{row_filter.passed:,} rows in {out}", *lines])


@contextlib.contextmanager
def _whole(out: Path | Url) -> Iterator[Path | Url]:
    """Where to write what is to appear at `out`, all hooks at once; at a URL, each hook by itself."""
    if isinstance(out, Url):
        yield out
    else:
        with writing(out), replacing(out) as partial:
            yield partial


def _open(src: Path | Url) -> dict[str, StoredRows]:
    """The rows at `src`, by their paths in it: itself, or all folders of shards in it."""
    inner = [] if isinstance(src, Url) else _inner(src)
    if not inner:
        return {"": open_rows(src)}
    sources: dict[str, StoredRows] = {folder.name: ShardedRows(folder) for folder in inner}
    first, *others = sources.values()
    for other in others:
        check_same_tokens(first, other)
    return sources


def _inner(src: Path) -> list[Path]:
    """The folders of shards in `src`, unless that is one itself."""
    if not os.path.isdir(src) or is_there(src / METADATA):  # False, not an error, for names that nothing can have
        return []
    try:
        return sorted(path for path in src.iterdir() if _has_shards(path))
    except OSError as e:
        raise cannot_read(src, e) from None


def _has_shards(path: Path) -> bool:
    """Whether `path` is to be read as a folder of shards. One whose metadata are lost is not left out without a word."""
    return is_there(path / METADATA) or any(path.glob("*.safetensors"))


def _pieces(sources: dict[str, StoredRows]) -> Iterator[Piece]:
    """All rows of all sources, with the columns that any of them has."""
    n_rows = next(iter(sources.values())).n_rows
    holders = {name: rows for name in TOKEN_COLUMNS for rows in sources.values() if name in rows.columns}
    with tqdm(total=n_rows, unit=" rows", unit_scale=True, desc="filter", delay=2) as bar:
        for start in range(0, n_rows, _ROWS):
            n = min(_ROWS, n_rows - start)
            x = {name: torch.empty(n, rows.d_in, dtype=rows.dtype) for name, rows in sources.items()}
            for name, x_ND in x.items():
                sources[name].read(start, x_ND)
            yield Piece(x, {name: rows.column(name, start, n) for name, rows in holders.items()})
            bar.update(n)
