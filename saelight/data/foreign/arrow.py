"""What reading Arrow and Parquet has in common: pyarrow, which is an extra, and nested lists as rows of numbers.

Shapes: N rows, D d_in.
"""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saelight.errors import UserError


def pyarrow(path: Path, module: str = "pyarrow") -> Any:
    """pyarrow, or a module of it. Raises `UserError` naming the extra when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"reading {path} takes pyarrow: pip install 'saelight[parquet]'") from None


def damage() -> tuple[type[Exception], ...]:
    """What pyarrow raises for bytes that are none of its own."""
    return importlib.import_module("pyarrow").lib.ArrowException, OSError, ValueError, KeyError


class Flat(NamedTuple):
    """An array of lists without the lists."""

    values: Any
    """pyarrow's array of numbers."""
    lengths: tuple[int, ...]
    """How long the lists of each level are, the outermost first: all of them alike."""


def flat(array: Any, place: object) -> Flat:
    """The numbers of nested lists. Raises `UserError` when lists of one level differ in length, or something is missing."""
    pa = importlib.import_module("pyarrow")
    lengths = []
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            raise UserError(f"{place} has {array.null_count} missing values (nulls); leave those rows out")
        if pa.types.is_fixed_size_list(array.type):
            lengths.append(array.type.list_size)
            array = array.values.slice(array.offset * array.type.list_size, len(array) * array.type.list_size)
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            offsets = array.offsets.to_numpy()
            each = np.diff(offsets)
            first = int(each[0]) if len(each) else 0
            if (odd := np.flatnonzero(each != first)).size:
                raise UserError(
                    f"{place} has lists of different lengths: {first} and, at {int(odd[0])}, {int(each[odd[0]])}; rows need "
                    "one width"
                )
            lengths.append(first)
            begin = int(offsets[0]) if len(offsets) else 0
            array = array.values.slice(begin, len(array) * first)
        else:
            return Flat(array, tuple(lengths))


def value_type(arrow_type: Any) -> tuple[Any, int]:
    """The numbers' type of nested lists, and how many levels of lists there are."""
    pa = importlib.import_module("pyarrow")
    levels = 0
    while True:
        if isinstance(arrow_type, pa.BaseExtensionType):
            arrow_type = arrow_type.storage_type
        if not (
            pa.types.is_fixed_size_list(arrow_type) or pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)
        ):
            return arrow_type, levels
        arrow_type, levels = arrow_type.value_type, levels + 1


def dtype_of(arrow_type: Any) -> np.dtype | None:
    """NumPy's dtype of a type of numbers; None for anything else."""
    pa = importlib.import_module("pyarrow")
    numbers = pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type) or pa.types.is_boolean(arrow_type)
    return np.dtype(arrow_type.to_pandas_dtype()) if numbers else None


def is_float(arrow_type: Any) -> bool:
    """Whether a type is of floats."""
    dtype = dtype_of(arrow_type)
    return dtype is not None and dtype.kind == "f"
