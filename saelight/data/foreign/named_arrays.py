"""Arrays with names in one file, as .npz and .safetensors have them: which are the activations, and which columns of them.

Shapes: N rows, D d_in.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.foreign.layout import COLUMN_NAMES, Address, Layout
from saelight.data.foreign.row_parts import Held, Part, Placed, Streamed
from saelight.data.foreign.values import Values, whole
from saelight.data.shards.reader import TOKEN_COLUMNS
from saelight.errors import UserError


class Array(NamedTuple):
    """One array of a file."""

    shape: tuple[int, ...]
    dtype: np.dtype | str
    """NumPy's, or the name of one that NumPy does not have."""
    offset: int
    """Where its bytes begin; meaningless where `why` is said."""
    why: str | None = None
    """Why it cannot be read in place, as the end of "X is …"."""
    load: Callable[[], Iterator[np.ndarray]] | None = None
    """Then: its rows in pieces."""


def layout_of(
    address: Address, size: int, arrays: dict[str, Array], values_of: Callable[[np.dtype | str, object], Values]
) -> Layout:
    """The layout of the array that the address means, with the columns beside it.

    Args:
        size: Bytes of the file.
        arrays: All of its arrays by name, at least one; a file of one array has it under "".
        values_of: What activations of a dtype are; raises `UserError` naming the place (its second argument).

    Raises:
        UserError: None or several could be meant, or the one that is meant holds no rows of activations.
    """
    columns = {name for name, array in arrays.items() if name in COLUMN_NAMES and _kind(array) in "iu"}
    name = _meant(address, {name: array for name, array in arrays.items() if name not in columns} or arrays)
    beside = sorted(columns - {name})
    array, place = arrays[name], f"{address.path}:{name}" if name else str(address.path)
    if len(array.shape) != 2:
        raise UserError(f"{place} has shape {array.shape}; activations are rows × width: save x.reshape(-1, width) instead")
    n_rows, d_in = array.shape
    if n_rows == 0 or d_in == 0:
        raise UserError(f"{place} is empty: its shape is {array.shape}; write the activations again")
    values = values_of(array.dtype, place)
    return Layout(
        [_rows(address.path, size, place, array, values)],
        d_in,
        values.read_as,
        {
            COLUMN_NAMES[other]: [
                column_of(address.path, size, arrays[other], f"{address.path}:{other}", COLUMN_NAMES[other], n_rows)
            ]
            for other in beside
        },
        model="unknown",
        hook=name or address.path.stem,
        notes={},
        files=[address.path],
    )


def _meant(address: Address, arrays: dict[str, Array]) -> str:
    """The array that is named, or the only one that has two dimensions."""
    if address.name is None:
        flat = [name for name, array in arrays.items() if len(array.shape) == 2]
        if len(flat) == 1 or len(arrays) == 1:
            return (flat or list(arrays))[0]
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:20])
        if not flat:
            raise UserError(f"{address.path} has no array of rows × width: it has {shapes}; save x.reshape(-1, width)")
        raise UserError(f"{address.path} has several arrays ({shapes}); say which, as {address.path}:{flat[0]}")
    return address.chosen(list(arrays), "array")


def _kind(array: Array) -> str:
    return array.dtype.kind if isinstance(array.dtype, np.dtype) else "f"


def _rows(path: Path, size: int, place: str, array: Array, values: Values) -> Part | Streamed:
    n_rows, d_in = array.shape
    if array.why is None:
        return Placed(path, size, values, d_in, array.offset, n_rows)

    def pieces() -> Iterator[Tensor]:
        assert array.load is not None
        with np.errstate(over="ignore", invalid="ignore"):
            for piece in array.load():
                yield torch.from_numpy(piece.astype(piece.dtype.newbyteorder("="))).to(values.read_as)

    return Streamed(n_rows, place, array.why, pieces)


def column_of(path: Path, size: int, array: Array, place: str, name: str, n_rows: int) -> Part:
    """The column `name` of `n_rows` rows: as many whole numbers, in whatever shape. Raises `UserError` when it is none."""
    read_as = TOKEN_COLUMNS[name]
    kind = whole(array.dtype, read_as) if isinstance(array.dtype, np.dtype) else None
    if kind is None:
        raise UserError(f"{place} holds {array.dtype}, where whole numbers belong; rename it if it is no column of the rows")
    if math.prod(array.shape) != n_rows:
        raise UserError(
            f"{place} has {math.prod(array.shape)} numbers for {n_rows} rows; one per row belongs there, rename it if it is "
            "something else"
        )
    if array.load is None:
        return Placed(path, size, kind, 1, array.offset, n_rows)
    loaded = np.concatenate([piece.reshape(-1) for piece in array.load()])
    return Held(torch.from_numpy(loaded.astype(str(read_as).removeprefix("torch."))), place)
