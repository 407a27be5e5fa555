"""SAELens's cached activations: a folder that `datasets.save_to_disk` wrote, of Arrow streams whose names `state.json` has.

https://github.com/decoderesearch/SAELens (`CacheActivationsRunner`). A row of the table is one context: (context, D) floats
in a column named after the hook, token ids beside them. In a record batch its numbers lie side by side, so they are read
where they lie. Columns of vectors, a row of the table each, are read as well.

Shapes: N rows, D d_in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired

import numpy as np
import torch
from pydantic import AfterValidator, Field, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

from saelight.data.foreign import arrow
from saelight.data.foreign.described import file_size, read_json
from saelight.data.foreign.layout import COLUMN_NAMES, Address, Layout, joined
from saelight.data.foreign.row_parts import Held, Part, Placed, Positions, Streamed
from saelight.data.foreign.values import Values, floats, whole
from saelight.data.shards.disk import is_there
from saelight.data.shards.metadata import plain_name
from saelight.data.shards.reader import TOKEN_COLUMNS
from saelight.errors import UserError

_STATE = "state.json"


class _File(TypedDict):
    filename: Annotated[str, AfterValidator(plain_name)]


class _State(TypedDict):
    _data_files: Annotated[list[_File], Field(min_length=1)]
    _indices_data_files: NotRequired[list[_File] | None]


_SCHEMA = TypeAdapter(_State)


def is_here(path: Path) -> bool:
    return path.is_dir() and (is_there(path / _STATE) or is_there(path / "dataset_dict.json"))


def read(address: Address) -> Layout:
    """The column that is meant. Raises `UserError` when the folder is damaged, or none can be meant."""
    path = address.without_layers().path
    if not is_there(path / _STATE):
        raise UserError(f"{path} is a folder of several splits of a data set; name one of the folders in it")
    state = read_json(path / _STATE, _SCHEMA)
    if state.get("_indices_data_files"):
        raise UserError(f"{path} is a choice of a data set's rows; write it anew with flatten_indices().save_to_disk")
    files = [path / file["filename"] for file in state["_data_files"]]
    return joined(address, [_file(address, file) for file in files])._replace(files=files)


class _Batch(NamedTuple):
    """Record batches of one file, as they lie in memory that is the file."""

    base: int
    size: int
    names: list[str]
    """Of the columns."""
    batches: list[Any]


def _opened(path: Path) -> _Batch:
    pa = arrow.pyarrow(path)
    size = file_size(path)
    if not size:
        raise UserError(f"{path} is empty; copy it again")
    try:
        memory = pa.py_buffer(np.memmap(path, np.uint8, "r"))
        with pa.ipc.open_stream(memory) as stream:
            names, batches = stream.schema.names, list(stream)
        for batch in batches:
            batch.validate(full=True)  # offsets beyond the numbers would be followed
        return _Batch(memory.address, memory.size, names, batches)
    except arrow.damage() as e:
        raise UserError(f"{path} is damaged, or no Arrow stream ({' '.join(str(e).split())[:200]}); copy it again") from None


def _file(address: Address, path: Path) -> Layout:
    opened = _opened(path)
    if not opened.batches:
        raise UserError(f"{path} has no rows; copy it again")
    schema = opened.batches[0].schema
    name = _hook(address, schema)
    place = f"{path}:{name}"
    dtype = arrow.dtype_of(arrow.value_type(schema.field(name).type)[0])
    values = floats(dtype if dtype is not None else np.dtype(object), place)
    flats = [arrow.flat(batch.column(name), place) for batch in opened.batches if len(batch)]
    lengths = {flat.lengths for flat in flats}
    if len(lengths) != 1 or 0 in next(iter(lengths)):
        raise UserError(f"{place} has lists of lengths {sorted(lengths)}; rows need one width, and at least one number")
    *context, d_in = next(iter(lengths))
    parts = [_part(path, opened, flat.values, values, d_in, place) for flat in flats]
    n_rows = sum(part.rows for part in parts)
    columns: dict[str, list[Part]] = {}
    for other in opened.names:
        column = COLUMN_NAMES.get(other)
        if column is not None and column not in columns and other != name:
            columns[column] = _column(path, opened, other, TOKEN_COLUMNS[column], n_rows)
    if context and "positions" not in columns:
        columns["positions"] = [Positions(n_rows, context[-1])]
    return Layout(parts, d_in, values.read_as, columns, model="unknown", hook=name, notes={}, files=[path])


def _hook(address: Address, schema: Any) -> str:
    """The column of lists of floats that is meant."""
    kinds = {field.name: arrow.value_type(field.type) for field in schema}
    lists = [name for name, (kind, levels) in kinds.items() if levels and arrow.is_float(kind)]
    if not lists:
        listed = ", ".join(f"{field.name} {field.type}" for field in list(schema)[:20])
        raise UserError(f"{address.path} has no column of lists of floats: it has {listed}; cache activations again")
    return address.chosen(lists, "column")


def _offset(opened: _Batch, numbers: Any) -> int | None:
    """Where numbers begin in the file; None where they are not of the file as it is (they were decompressed)."""
    buffer = numbers.buffers()[1]
    at = buffer.address + numbers.offset * (numbers.type.bit_width // 8) - opened.base
    return at if at >= 0 and at + len(numbers) * (numbers.type.bit_width // 8) <= opened.size else None


def _part(path: Path, opened: _Batch, numbers: Any, values: Values, d_in: int, place: str) -> Part | Streamed:
    rows = len(numbers) // d_in
    offset = _offset(opened, numbers)
    if offset is not None:
        return Placed(path, opened.size, values, d_in, offset, rows)

    def pieces() -> Iterator[Tensor]:
        yield torch.from_numpy(numbers.to_numpy().reshape(rows, d_in).copy()).to(values.read_as)

    return Streamed(rows, place, "compressed", pieces)


def _column(path: Path, opened: _Batch, name: str, read_as: torch.dtype, n_rows: int) -> list[Part]:
    parts: list[Part] = []
    for batch in opened.batches:
        numbers = arrow.flat(batch.column(name), f"{path}:{name}").values
        dtype = arrow.dtype_of(numbers.type)
        kind = None if dtype is None else whole(dtype, read_as)
        if kind is None:
            raise UserError(
                f"{path}:{name} holds {numbers.type}, where whole numbers belong; rename it if it is no column of them"
            )
        offset = _offset(opened, numbers)
        if offset is not None:
            parts.append(Placed(path, opened.size, kind, 1, offset, len(numbers)))
        else:
            parts.append(Held(torch.from_numpy(numbers.to_numpy().copy()).to(read_as), f"{path}:{name}"))
    if (found := sum(part.rows for part in parts)) != n_rows:
        raise UserError(f"{path}:{name} has {found} numbers for {n_rows} rows; one per row belongs there")
    return parts
