"""NumPy's .npy: a header with dtype, shape and order, then the numbers.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from saelight.data.foreign.layout import Address, Layout
from saelight.data.foreign.named_arrays import Array, column_of, layout_of
from saelight.data.foreign.row_parts import Part
from saelight.data.foreign.values import Values, floats
from saelight.data.shards.disk import reading
from saelight.errors import UserError

SUFFIX = ".npy"
_PIECE = 8192
_DAMAGE = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, EOFError)
"""What NumPy raises for headers that are none."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Header(NamedTuple):
    """What stands before the numbers."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    """Columns lie side by side, not rows."""
    length: int
    """Bytes of the header."""

    @property
    def end(self) -> int:
        """Bytes of the header and the numbers."""
        return self.length + math.prod(self.shape) * self.dtype.itemsize


def is_here(path: Path) -> bool:
    return path.suffix == SUFFIX and path.is_file()


def read(address: Address) -> Layout:
    """The rows of the file. Raises `UserError` when it is damaged, or holds something else."""
    address.without_layers().without_names()
    size, header = _checked(address.path)
    return layout_of(address, size, {"": array(address.path, header, header.length)}, numpy_values)


def read_column(path: Path, name: str, n_rows: int) -> Part:
    """A file with one of the columns of the rows, `name`. Raises `UserError` as `read` does."""
    size, header = _checked(path)
    return column_of(path, size, array(path, header, header.length), str(path), name, n_rows)


def _checked(path: Path) -> tuple[int, Header]:
    """Bytes of the file and its header, which agree."""
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(file, path)
    # Of Python objects, which are pickled, the header does not say how long they are.
    if not header.dtype.hasobject and header.end != size:
        raise UserError(
            f"{path} is truncated: {size} bytes, its header says {header.end}; copy it again"
            if size < header.end
            else f"{path} has {size} bytes, its header says {header.end}; save one array in a file of its own, and wait "
            "until it is written"
        )
    return size, header


def read_header(file: BinaryIO, place: object) -> Header:
    """The header that `file` stands at. Raises `UserError` naming `place`."""
    start = file.tell()
    try:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says so of what Python 2 wrote
            shape, fortran, dtype = _HEADERS[version](file)
    except _DAMAGE as e:
        raise UserError(f"{place} is damaged, or no .npy file ({' '.join(str(e).split())[:200]}); save it again") from None
    if any(size < 0 for size in shape):
        raise UserError(f"{place} is damaged: its header says shape {shape}; save it again")
    return Header(dtype, shape, bool(fortran), file.tell() - start)


def array(path: Path, header: Header, offset: int) -> Array:
    """The array whose numbers begin at `offset` of `path`."""
    two = len(header.shape) == 2 and min(header.shape) > 1
    if not (header.fortran and two):
        return Array(header.shape, header.dtype, offset)

    def load() -> Iterator[np.ndarray]:
        x_ND = np.memmap(path, header.dtype, "r", offset, header.shape, "F")
        for start in range(0, len(x_ND), _PIECE):
            yield np.ascontiguousarray(x_ND[start : start + _PIECE])

    return Array(header.shape, header.dtype, offset, "stored by columns (Fortran order)", load)


def numpy_values(dtype: np.dtype | str, place: object) -> Values:
    """Activations of a NumPy dtype."""
    assert isinstance(dtype, np.dtype)
    return floats(dtype, place)
