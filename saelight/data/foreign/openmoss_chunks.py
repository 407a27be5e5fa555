"""OpenMOSS's cached activations: a folder for each hook, in it `chunk-00000000.safetensors` … or
`shard-0-chunk-00000000.safetensors` …, or the same as .pt.

https://github.com/OpenMOSS/Language-Model-SAEs. `activation` is (samples, context, D) or (tokens, D), `tokens` and `mask`
have the same leading dimensions. What `mask` leaves out (padding, mostly) is no activation, there as here.

Shapes: N rows, D d_in.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelight.data.foreign.layout import Address, Layout, joined, names_in
from saelight.data.foreign.row_parts import Held, Part, Placed, Positions, Streamed
from saelight.data.foreign.safetensors_file import arrays_of, tensor_values
from saelight.data.foreign.values import floats_named, whole
from saelight.data.shards.disk import reading
from saelight.data.shards.header import read_header
from saelight.data.shards.open_files import OpenFiles
from saelight.errors import UserError, one_line

_CHUNK = re.compile(r"(?:shard-(\d{1,9})-)?chunk-(\d{1,9})\.(safetensors|pt)")
_X, _TOKENS, _MASKS = "activation", "tokens", ("mask", "attention_mask")


def is_here(path: Path) -> bool:
    return path.is_dir() and bool(_chunks(path) or _hooks(path))


def read(address: Address) -> Layout:
    """The chunks of one hook. Raises `UserError` when one is damaged or unlike the others, or the hook is not said."""
    folder = address.without_layers().path
    chunks = _chunks(folder)
    if not chunks:
        folder = folder / address.chosen(_hooks(folder), "hook")
        chunks = _chunks(folder)
    elif address.name is not None:
        raise UserError(f"{folder} is the folder of one hook; leave out :{address.name}")
    layouts = [_tensors(path) if path.suffix == ".safetensors" else _pickled(path) for path in chunks]
    return joined(address._replace(path=folder), layouts)._replace(hook=folder.name)


def _chunks(folder: Path) -> list[Path]:
    """The chunks in a folder, by shard and number."""
    found = [(match, path) for path in names_in(folder) if (match := _CHUNK.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: (int(item[0][1] or 0), int(item[0][2]), item[0][3]))]


def _hooks(folder: Path) -> list[str]:
    return [path.name for path in names_in(folder) if path.is_dir() and _chunks(path)]


def _tensors(path: Path) -> Layout:
    header = read_header(path)
    arrays = arrays_of(path, header)
    if _X not in arrays:
        raise UserError(f"{path} has no tensor {_X!r}: it has {', '.join(arrays) or 'none'}; copy it again")
    *leading, d_in = arrays[_X].shape or (0,)
    context = _context(path, leading, d_in)
    values = tensor_values(arrays[_X].dtype, f"{path}:{_X}")
    n = math.prod(leading)
    files = OpenFiles()
    mask = next((name for name in _MASKS if name in arrays), None)
    kept_N = None
    if mask is not None:
        kept_N = (
            _column(path, header.size, arrays[mask].dtype, mask, arrays[mask].shape, leading, arrays[mask].offset, files)
            != 0
        )
    starts_R, rows_R = _runs(kept_N, n)
    offsets_R = arrays[_X].offset + starts_R * d_in * values.stored.itemsize
    columns: dict[str, list[Part]] = {}
    if _TOKENS in arrays:
        tokens = arrays[_TOKENS]
        ids_N = _column(path, header.size, tokens.dtype, _TOKENS, tokens.shape, leading, tokens.offset, files)
        columns["token_ids"] = [Held((ids_N if kept_N is None else ids_N[kept_N]).int(), f"{path}:{_TOKENS}")]
    if context is not None:
        columns["positions"] = [_positions(n, context, kept_N, path)]
    part = Placed(path, header.size, values, d_in, offsets_R, rows_R)
    return Layout([part], d_in, values.read_as, columns, model="unknown", hook="", notes={}, files=[path])


def _pickled(path: Path) -> Layout:
    """A chunk that torch.save wrote, which only conversion reads; loaded without unpickling anything but tensors."""
    data = _load(path)
    x = data.get(_X) if isinstance(data, dict) else None
    if not isinstance(x, Tensor) or not x.ndim:
        raise UserError(f"{path} holds no tensor {_X!r}; copy it again")
    *leading, d_in = x.shape
    context = _context(path, leading, d_in)
    values = floats_named(str(x.dtype), f"{path}:{_X}")
    n = math.prod(leading)
    beside = {name: data[name] for name in (*_MASKS, _TOKENS) if isinstance(data.get(name), Tensor)}
    for name, column in beside.items():
        _check_leading(path, name, tuple(column.shape), leading)
    mask = next((name for name in _MASKS if name in beside), None)
    kept_N = None if mask is None else beside[mask].reshape(-1) != 0
    columns: dict[str, list[Part]] = {}
    if _TOKENS in beside:
        ids_N = beside[_TOKENS].reshape(-1).int()
        columns["token_ids"] = [Held(ids_N if kept_N is None else ids_N[kept_N], f"{path}:{_TOKENS}")]
    if context is not None:
        columns["positions"] = [_positions(n, context, kept_N, path)]

    def pieces() -> Iterator[Tensor]:
        x_ND = _load(path)[_X].reshape(n, d_in).to(values.read_as)
        yield x_ND if kept_N is None else x_ND[kept_N]

    rows = n if kept_N is None else int(kept_N.sum())
    part = Streamed(rows, path, "pickled by torch.save", pieces)
    return Layout([part], d_in, values.read_as, columns, model="unknown", hook="", notes={}, files=[path])


def _load(path: Path) -> Any:
    with reading(path):
        pass  # what is no file, or may not be read, is said as everywhere
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:
        raise UserError(f"{path} is damaged, or holds more than tensors ({one_line(e)}); write it again") from None


def _context(path: Path, leading: list[int], d_in: int) -> int | None:
    """Tokens of a sample; None where samples are tokens."""
    if len(leading) not in (1, 2) or not d_in or not math.prod(leading):
        raise UserError(f"{path}: {_X} has shape {(*leading, d_in)}; it must be samples × context × width or tokens × width")
    return leading[1] if len(leading) == 2 else None


def _check_leading(path: Path, name: str, shape: tuple[int, ...], leading: list[int]) -> None:
    if list(shape) != leading:
        raise UserError(f"{path}: {name} has shape {shape}, {_X} is of {tuple(leading)} tokens; copy it again")


def _column(
    path: Path,
    size: int,
    dtype: np.dtype | str,
    name: str,
    shape: tuple[int, ...],
    leading: list[int],
    offset: int,
    files: OpenFiles,
) -> Tensor:
    """All of a column of whole numbers or truth values: (N,) int64."""
    _check_leading(path, name, shape, leading)
    if isinstance(dtype, np.dtype) and dtype.kind == "b":
        dtype = np.dtype("u1")
    kind = whole(dtype, torch.int64) if isinstance(dtype, np.dtype) else None
    if kind is None:
        raise UserError(f"{path}: {name} holds {dtype}, where whole numbers belong; copy it again")
    column_N = torch.empty(math.prod(shape), dtype=torch.int64)
    Placed(path, size, kind, 1, offset, len(column_N)).read(0, column_N, files)
    return column_N


def _runs(kept_N: Tensor | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each run of rows that are kept."""
    if kept_N is None:
        return np.array([0]), np.array([n])
    edges = np.diff(kept_N.numpy().astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return starts, stops - starts


def _positions(n: int, context: int, kept_N: Tensor | None, path: Path) -> Part:
    if kept_N is None:
        return Positions(n, context)
    return Held((torch.arange(n) % context)[kept_N].int(), path)
