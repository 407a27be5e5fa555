"""The header of a shard: the tensors of a safetensors file, and where each lies."""

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from saelight.data.remote.remote_url import Url
from saelight.data.shards.disk import reading
from saelight.data.shards.strict_json import parse, shown, validated
from saelight.errors import UserError

MAX_BYTES = 100_000_000  # safetensors' own limit
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Described(TypedDict):
    dtype: str
    shape: list[_Count]
    data_offsets: Annotated[list[_Count], Field(min_length=2, max_length=2)]


_TENSORS = TypeAdapter(dict[str, _Described])
_NOTES = TypeAdapter(dict[str, str])


class StoredTensor(NamedTuple):
    """One tensor of a file."""

    dtype: str
    """As the format writes it: `BF16`, `F32`, …"""
    shape: list[int]
    start: int
    """Byte offset in the file."""
    size: int
    """Bytes."""


class Header(NamedTuple):
    """What a file holds."""

    size: int
    """Bytes of the whole file."""
    tensors: Mapping[str, StoredTensor]


def read_header(path: Path) -> Header:
    """The header of the safetensors file `path`.

    Raises `UserError` when the file is missing, may not be read, is no safetensors file, or is of another size than its
    header says.
    """
    with reading(path) as file:
        return parse_header(path, os.fstat(file.fileno()).st_size, file.read)


def parse_header(path: Path | Url, size: int, read: Callable[[int], bytes]) -> Header:
    """The header of a file of `size` bytes, of which `read` gives the next ones, as many as asked for. Raises as
    `read_header`."""
    length = int.from_bytes(read(8), "little")
    if size < 8 + min(length, MAX_BYTES):
        raise UserError(f"shard {path} is truncated: {size} bytes end inside its header; copy it again")
    text = read(length) if length <= MAX_BYTES else b""
    try:
        if length > MAX_BYTES:
            raise ValueError(f"a header of {length} bytes")
        tensors = _tensors(text, 8 + length)
    except ValueError as e:
        raise UserError(f"shard {path} is damaged, or no safetensors file ({e}); copy it again, or harvest again") from None
    end = max((tensor.start + tensor.size for tensor in tensors.values()), default=8 + length)
    if size != end:
        state = "truncated" if size < end else "too long"
        raise UserError(f"shard {path} is {state}: {size} bytes, its header says {end}; copy or harvest it again")
    return Header(size, tensors)


@lru_cache(64)  # all files of a folder but the last have the same header, and there may be ten thousand
def _tensors(text: bytes, start: int) -> Mapping[str, StoredTensor]:
    """The tensors that a header describes, whose bytes begin at `start` of the file. Raises `ValueError` when they are not
    as the format wants them: one after the other, without a gap."""
    header = parse(text)
    if isinstance(header, dict):
        validated(_NOTES, header.pop("__metadata__", {}))
    described = validated(_TENSORS, header)
    tensors, at = {}, 0
    for name, tensor in sorted(described.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        if begin != at or end < begin:
            raise ValueError(f"{shown(name)} lies at bytes {begin} to {end}, it must begin at {at}")
        tensors[name] = StoredTensor(tensor["dtype"], tensor["shape"], start + begin, end - begin)
        at = end
    return tensors
