"""Parquet: rows in a column of lists (all of one length), or in a column of floats for each dimension. A `layer_idx` column
says which layer a row is of.

Its pages are encoded: what is small is decoded into memory, and what is large has to be converted.

Shapes: N rows, D d_in.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.foreign import arrow
from saelight.data.foreign.layout import COLUMN_NAMES, Address, Layout
from saelight.data.foreign.row_parts import Held, Part, Streamed
from saelight.data.foreign.values import Values, floats
from saelight.data.shards.disk import reading
from saelight.data.shards.reader import TOKEN_COLUMNS
from saelight.errors import UserError

SUFFIX = ".parquet"
LAYER = ("layer_idx", "layer")
_PIECE = 8192


def is_here(path: Path) -> bool:
    return path.suffix == SUFFIX and path.is_file()


class _Chosen(NamedTuple):
    """Which columns hold the rows."""

    columns: list[str]
    lists: bool
    """One column of lists, not a column for each dimension."""
    values: Values


def read(address: Address) -> Layout:
    """The column and the layer that are meant. Raises `UserError` when the file is damaged, or none can be meant."""
    path = address.path
    parquet = arrow.pyarrow(path, "pyarrow.parquet")
    with reading(path):
        pass  # what is no file, or may not be read, is said as everywhere
    try:
        with parquet.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
        if twice := [name for name, n in Counter(schema.names).items() if n > 1]:
            raise UserError(f"{path} has several columns {twice[0]!r}; name each once")
        layer, stays_N = _layer(address, schema)
        chosen = _chosen(address, schema)
        n_rows = n_rows if stays_N is None else int(stays_N.sum())
        if n_rows == 0:
            raise UserError(f"{path} has no rows; write the activations again")
        place = f"{path}:{chosen.columns[0]}" if chosen.lists else str(path)
        d_in = _width(path, chosen) if chosen.lists else len(chosen.columns)
        if d_in == 0:
            raise UserError(f"{place} has empty lists; write the activations again")
        columns = _columns(path, schema, chosen, stays_N)
    except arrow.damage() as e:
        raise unreadable(path, e) from None

    def pieces() -> Iterator[Tensor]:
        return _pieces(path, place, chosen, d_in, stays_N)

    return Layout(
        [Streamed(n_rows, place, "encoded and too large to be decoded into memory", pieces, small=True)],
        d_in,
        chosen.values.read_as,
        columns,
        model="unknown",
        hook=address.name or (chosen.columns[0] if chosen.lists else path.stem),
        notes={} if layer is None else {"layer": layer},
        files=[path],
    )


def unreadable(path: Path, error: Exception) -> UserError:
    """An exception of pyarrow's as one line; one of ours as it is."""
    if isinstance(error, UserError):
        return error
    return UserError(f"{path} is damaged, or no Parquet ({' '.join(str(error).split())[:200]}); write it again")


def _layer(address: Address, schema: Any) -> tuple[int | None, np.ndarray | None]:
    """The layer that is meant, if there are layers, and which rows are of it: (N,) bool, or None for all."""
    named = [name for name in LAYER if name in schema.names]
    if not named:
        address.without_layers()
        return None, None
    if not _is_whole(schema, named[0]):
        kind = schema.field(named[0]).type
        raise UserError(
            f"{address.path}:{named[0]} holds {kind}; layers are chosen by whole numbers: write them so, or give the column "
            "another name if all rows belong together"
        )
    layers_N = _numbers(address.path, named[0])
    layer = address.chosen_layer([int(layer) for layer in np.unique(layers_N)] or [0])
    stays_N = layers_N == layer
    return layer, None if stays_N.all() else stays_N


def _chosen(address: Address, schema: Any) -> _Chosen:
    """The columns of the activations: the one that is named, else the only one of lists of floats, else all of floats."""
    path = address.path
    types = {field.name: arrow.value_type(field.type) for field in schema}
    lists = [name for name, (kind, levels) in types.items() if levels == 1 and _kind(kind) == "f"]
    if address.name is not None:
        name = address.chosen(schema.names, "column")
        kind, levels = types[name]
        dtype = arrow.dtype_of(kind)
        if levels != 1 or dtype is None:
            raise UserError(f"{path}:{name} holds {schema.field(name).type}; rows are lists of floats, all of one length")
        return _Chosen([name], True, floats(dtype, f"{path}:{name}"))
    if lists:
        name = address.chosen(lists, "column")
        return _Chosen([name], True, floats(np.dtype(types[name][0].to_pandas_dtype()), f"{path}:{name}"))
    single = [name for name, (kind, levels) in types.items() if levels == 0 and _kind(kind) == "f"]
    others = [name for name in types if name not in single and name not in COLUMN_NAMES and name not in LAYER]
    odd = [name for name in others if types[name][1] or _kind(types[name][0]) is not None]
    if not single or odd:
        listed = ", ".join(f"{field.name} {field.type}" for field in list(schema)[:20])
        raise UserError(
            f"{path} has no column of lists of floats, and its columns are not all floats ({listed}); write one list per row"
        )
    widest = max((np.dtype(arrow.dtype_of(types[name][0])) for name in single), key=lambda dtype: dtype.itemsize)
    return _Chosen(single, False, floats(widest, path))


def _kind(arrow_type: Any) -> str | None:
    dtype = arrow.dtype_of(arrow_type)
    return None if dtype is None else dtype.kind


def _is_whole(schema: Any, name: str) -> bool:
    return _kind(schema.field(name).type) in ("i", "u")


def _numbers(path: Path, name: str) -> np.ndarray:
    """A column of numbers: (N,)."""
    column = arrow.pyarrow(path, "pyarrow.parquet").read_table(path, columns=[name], partitioning=None).column(0)
    if column.null_count:
        raise UserError(f"{path}:{name} has {column.null_count} missing values (nulls); leave those rows out")
    return column.to_numpy()


def _columns(path: Path, schema: Any, chosen: _Chosen, stays_N: np.ndarray | None) -> dict[str, list[Part]]:
    """The columns beside the rows."""
    columns: dict[str, list[Part]] = {}
    for other in schema.names:
        name = COLUMN_NAMES.get(other)
        if name is not None and name not in columns and other not in chosen.columns and _is_whole(schema, other):
            numbers_N = _numbers(path, other)
            numbers_N = (numbers_N if stays_N is None else numbers_N[stays_N]).astype(np.int64)
            columns[name] = [Held(torch.from_numpy(numbers_N).to(TOKEN_COLUMNS[name]), f"{path}:{other}")]
    return columns


def _width(path: Path, chosen: _Chosen) -> int:
    """How long the first list is."""
    with arrow.pyarrow(path, "pyarrow.parquet").ParquetFile(path) as file:
        for batch in file.iter_batches(1, columns=chosen.columns):
            if len(batch):
                return arrow.flat(batch.column(0), f"{path}:{chosen.columns[0]}").lengths[0]
    return 0


def _pieces(path: Path, place: str, chosen: _Chosen, d_in: int, stays_N: np.ndarray | None) -> Iterator[Tensor]:
    """The rows, decoded in pieces (n, D)."""
    done = 0
    try:
        with arrow.pyarrow(path, "pyarrow.parquet").ParquetFile(path) as file:
            for batch in file.iter_batches(_PIECE, columns=chosen.columns):
                n = len(batch)
                if not n:
                    continue
                if chosen.lists:
                    values, (width,) = arrow.flat(batch.column(0), f"{place}, from row {done}")
                    if width != d_in:
                        raise UserError(
                            f"{place} has lists of different lengths: {d_in} and, at {done}, {width}; rows need one width"
                        )
                    x_ND = values.to_numpy(zero_copy_only=False).reshape(n, d_in)
                else:
                    sides = [arrow.flat(batch.column(name), f"{path}:{name}").values for name in chosen.columns]
                    x_ND = np.stack([side.to_numpy(zero_copy_only=False) for side in sides], 1)
                x_ND = x_ND if stays_N is None else x_ND[stays_N[done : done + n]]
                done += n
                with np.errstate(over="ignore", invalid="ignore"):
                    out = torch.empty(len(x_ND), d_in, dtype=chosen.values.read_as)
                    np.copyto(out.numpy(), x_ND, casting="unsafe")
                yield out
    except arrow.damage() as e:
        raise unreadable(path, e) from None
