"""Raw arrays with a JSON file beside each: `shard_0.memmap` is rows × width in C order, `shard_0.meta` says shape and dtype.

The ActivationCache of science-of-finetuning and jkminder/dictionary_learning: a folder for each submodule, numbered shards
in it, `config.json` with their number, and above it `tokens.pt` and `sequence_ranges.pt` for all submodules.

Shapes: N rows, D d_in.
"""

import math
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

from saelight.data.foreign.described import file_size, read_json
from saelight.data.foreign.layout import Address, Layout, joined, names_in
from saelight.data.foreign.row_parts import Held, Part, Placed
from saelight.data.foreign.values import floats_named
from saelight.data.shards.disk import is_there
from saelight.data.shards.metadata import Count, Positive
from saelight.errors import UserError, one_line

_META, _DATA, _CONFIG = ".meta", ".memmap", "config.json"


class _Meta(TypedDict):
    shape: Annotated[list[Count], Field(min_length=1)]
    dtype: NotRequired[str]


class _Config(TypedDict):
    shard_count: NotRequired[Positive]
    total_size: NotRequired[Count]
    store_tokens: NotRequired[bool]
    store_sequence_ranges: NotRequired[bool]
    shuffle_shards: NotRequired[bool]


_META_SCHEMA, _CONFIG_SCHEMA = TypeAdapter(_Meta), TypeAdapter(_Config)


def is_here(path: Path) -> bool:
    if path.is_dir():
        return any(file.suffix == _META for file in names_in(path))
    return path.is_file() and _meta_of(path) is not None


def read(address: Address) -> Layout:
    """The rows of a file, or of a folder of them. Raises `UserError` when one is damaged or unlike the others."""
    path = address.without_layers().without_names().path
    if not path.is_dir():
        return _file(path)
    metas = [file for file in names_in(path) if file.suffix == _META]
    config = read_json(path / _CONFIG, _CONFIG_SCHEMA) if is_there(path / _CONFIG) else _Config()
    if len(metas) != config.get("shard_count", len(metas)):
        raise UserError(f"{path} has {len(metas)} shards, {_CONFIG} says {config['shard_count']}; copy the folder whole")
    data = {file.stem: file for file in names_in(path) if file.suffix not in (_META, _DATA)}
    data |= {
        meta.stem: meta.with_suffix(_DATA) for meta in metas if meta.stem not in data or is_there(meta.with_suffix(_DATA))
    }
    layout = joined(address, [_file(data[meta.stem]) for meta in metas])
    n_rows = sum(part.rows for part in layout.parts)
    if n_rows != config.get("total_size", n_rows):
        raise UserError(f"{path} has {n_rows} rows, {_CONFIG} says {config['total_size']}; copy the folder whole")
    return layout._replace(columns=_columns(path, config, n_rows), hook=path.name)


def _meta_of(path: Path) -> Path | None:
    """The file that describes this one."""
    beside = [path.with_suffix(_META), path.with_name(path.name + _META)]
    return next((meta for meta in beside if meta != path and is_there(meta)), None)


def _file(path: Path) -> Layout:
    meta_file = _meta_of(path) or path.with_suffix(_META)
    meta = read_json(meta_file, _META_SCHEMA)
    shape = tuple(meta["shape"])
    if len(shape) != 2 or not all(shape):
        raise UserError(f"{path} has shape {shape}; activations are rows × width, at least one of each: write it again")
    values = floats_named(meta.get("dtype", "float32"), path)
    size, wanted = file_size(path), math.prod(shape) * values.stored.itemsize
    if size != wanted:
        raise UserError(f"{path} has {size} bytes, {meta_file.name} says {wanted}; copy both again")
    part = Placed(path, size, values, shape[1], 0, shape[0])
    return Layout([part], shape[1], values.read_as, {}, model="unknown", hook=path.stem, notes={}, files=[path])


def _columns(folder: Path, config: _Config, n_rows: int) -> dict[str, list[Part]]:
    """Tokens and sequences, which lie above the folder; of shuffled shards nobody knows whose they are."""
    columns: dict[str, list[Part]] = {}
    if config.get("shuffle_shards"):
        return columns
    tokens, ranges = folder.parent / "tokens.pt", folder.parent / "sequence_ranges.pt"
    if config.get("store_tokens") and is_there(tokens):
        ids_N = _numbers(tokens)
        if len(ids_N) != n_rows:
            raise UserError(f"{tokens} has {len(ids_N)} tokens for the {n_rows} rows of {folder}; copy the folder whole")
        columns["token_ids"] = [Held(ids_N.int(), tokens)]
    if config.get("store_sequence_ranges") and is_there(ranges):
        starts = _numbers(ranges)
        if len(starts) < 2 or starts[0] != 0 or starts[-1] != n_rows or (starts.diff() <= 0).any():
            raise UserError(f"{ranges} does not begin each sequence of the {n_rows} rows of {folder}; copy the folder whole")
        lengths = starts.diff()
        columns["document_ids"] = [Held(torch.arange(len(lengths)).repeat_interleave(lengths), ranges)]
        columns["positions"] = [Held((torch.arange(n_rows) - starts[:-1].repeat_interleave(lengths)).int(), ranges)]
    return columns


def _numbers(path: Path) -> Tensor:
    """A tensor of whole numbers that torch.save wrote: (N,) int64. Nothing else is unpickled."""
    file_size(path)
    try:
        tensor: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise UserError(f"{path} is damaged, or holds more than a tensor ({one_line(e)}); copy it again") from None
    if not isinstance(tensor, Tensor) or tensor.ndim != 1 or tensor.is_floating_point():
        raise UserError(f"{path} is no list of whole numbers; copy it again")
    return tensor.long()
