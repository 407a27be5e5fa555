"""safetensors files that are written an array at a time, or filled in place: the whole of them need not fit in memory."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from saelight.files import safetensors_header

_DTYPES = {"int64": "I64", "int32": "I32", "int16": "I16", "float64": "F64", "float32": "F32", "uint8": "U8"}
"""numpy's, as the format writes them."""


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, in their order, without a copy."""
    with path.open("wb") as file:
        file.write(safetensors_header({name: (_DTYPES[a.dtype.name], a.shape, a.nbytes) for name, a in arrays.items()}))
        for array in arrays.values():
            np.ascontiguousarray(array).tofile(file)


def map_tensors(path: Path, wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Make a file of these dtypes and shapes; its arrays, which are written by being filled. Raises `OSError` where the disk
    has no room for it."""
    sizes = {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, (dtype, shape) in wanted.items()}
    header = safetensors_header({name: (_DTYPES[dtype], shape, sizes[name]) for name, (dtype, shape) in wanted.items()})
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            # A disk that fills up under a memory map would kill the process: ask for all of it now.
            os.posix_fallocate(file.fileno(), 0, len(header) + sum(sizes.values()))
        else:
            file.truncate(len(header) + sum(sizes.values()))
        file.write(header)
    found: dict[str, np.ndarray] = {}
    start = len(header)
    for name, (dtype, shape) in wanted.items():
        found[name] = np.memmap(path, dtype, "r+", start, shape)
        start += sizes[name]
    return found
