"""Activations of any layout, written as shards: what has to be decoded too.

Shapes: N rows, D d_in.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from saelight.bars import bar
from saelight.data.foreign.finding import find
from saelight.data.foreign.foreign_rows import known
from saelight.data.foreign.layout import Layout, parse
from saelight.data.foreign.row_parts import Joined, Part, Streamed
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.open_files import OpenFiles
from saelight.data.shards.reader import COLUMNS, TOKEN_COLUMNS
from saelight.data.shards.writer import ShardWriter
from saelight.errors import UserError

_ROWS = 8192


def convert(
    src: str | Path | Url, out: str | Path | Url, dtype: str | None = None, model: str | None = None, hook: str | None = None
) -> str:
    """Write all rows at `src`, with their columns, to the new folder of shards `out`; what was written, in a line.

    Args:
        dtype: What to store them in. Default: what they are in, float64 as float32.
        model: The model's name, where the source does not say it.
        hook: The hook's.

    Raises:
        UserError: The source is none that is read, is damaged, or is shards already; `out` exists; a value is not finite.
    """
    if isinstance(src := located(src), Url):
        raise UserError(
            f"{src}: only shards are read from a URL, as they are; copy other activations to a disk to convert them"
        )
    found = find(src)
    if found is None and parse(src) is None:
        raise UserError(f"no activations at {src}: there is no such file or folder; check the path")
    if found is None:
        raise UserError(f"{src} is no activations of another layout; `saelight shards filter` writes shards anew")
    address, layout = found
    about = known(layout)
    n_rows = sum(part.rows for part in layout.parts)
    columns = {name: Joined(layout.columns[name]) for name in TOKEN_COLUMNS if name in layout.columns}
    files, done = OpenFiles(), 0
    with (
        ShardWriter(
            out,
            model=model or about.model,
            hook=hook or about.hook,
            dtype=dtype or str(layout.dtype).removeprefix("torch."),
            d_in=layout.d_in,
            source=about.notes | {"converted_from": address.path.name},
        ) as writer,
        bar(total=n_rows, unit=" rows", desc="convert", delay=2) as progress,
    ):
        for x_ND in _pieces(layout, files):
            n = len(x_ND)
            writer.append(x_ND, **{name: _column(column, name, done, n, files) for name, column in columns.items()})
            done += n
            progress.update(n)
    beside = f" with {', '.join(columns)}" if columns else ""
    return f"{done:,} rows × {layout.d_in} of {address} in {out}{beside}"


def _pieces(layout: Layout, files: OpenFiles) -> Iterator[Tensor]:
    for part in layout.parts:
        if isinstance(part, Streamed):
            yield from part.pieces()
            continue
        for start in range(0, part.rows, _ROWS):
            x_ND = torch.empty(min(_ROWS, part.rows - start), layout.d_in, dtype=layout.dtype)
            part.read(start, x_ND, files)
            yield x_ND


def _column(column: Part, name: str, start: int, n: int, files: OpenFiles) -> Tensor:
    out_N = torch.empty(n, dtype=COLUMNS[name])
    column.read(start, out_N, files)
    return out_N
