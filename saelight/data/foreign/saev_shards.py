"""saev's shards: `metadata.json`, `shards.json`, and `acts000000.bin` … in C order, float32 (examples, layers, tokens, D).

https://github.com/OSU-NLP-Group/saev. Every file has the size of a full one: behind the examples that `shards.json` counts
lie zeros. Its page on the protocol names two sizes otherwise than its code; both names are read.

An example is a document: its [CLS] token, where there is one, then its patches or tokens in their order.
"""

import math
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from saelight.data.foreign.described import file_size, read_json
from saelight.data.foreign.layout import Address, Layout
from saelight.data.foreign.row_parts import Numbers, Part, Placed, Positions
from saelight.data.foreign.values import Values, floats_named
from saelight.data.shards.disk import is_there
from saelight.data.shards.metadata import METADATA, Count, Integer, Positive, plain_name
from saelight.errors import UserError

_SHARDS = "shards.json"


class _Shard(TypedDict):
    name: Annotated[str, AfterValidator(plain_name)]
    n_examples: Count


class _Metadata(TypedDict):
    layers: Annotated[list[Integer], Field(min_length=1)]
    cls_token: bool
    d_model: Positive
    content_tokens_per_example: NotRequired[Positive]
    patches_per_ex: NotRequired[Positive]
    max_tokens_per_shard: NotRequired[Positive]
    patches_per_shard: NotRequired[Positive]
    n_examples: NotRequired[Count]
    dtype: NotRequired[str]
    family: NotRequired[str]
    ckpt: NotRequired[str]


_METADATA, _SHARD_LIST = TypeAdapter(_Metadata), TypeAdapter(list[_Shard])


def is_here(path: Path) -> bool:
    return path.is_dir() and is_there(path / _SHARDS) and is_there(path / METADATA)


def read(address: Address) -> Layout:
    """The rows of one layer. Raises `UserError` when the folder is damaged, or the layer not said."""
    path = address.without_names().path
    meta, shards = read_json(path / METADATA, _METADATA), read_json(path / _SHARDS, _SHARD_LIST)
    content = meta.get("content_tokens_per_example", meta.get("patches_per_ex"))
    per_shard = meta.get("max_tokens_per_shard", meta.get("patches_per_shard"))
    if content is None or per_shard is None:
        raise UserError(f"{path / METADATA} does not say how many tokens an example and a shard have; copy it again")
    layers, tokens, d_in = meta["layers"], content + meta["cls_token"], meta["d_model"]
    layer = address.chosen_layer(layers)
    values = floats_named(meta.get("dtype", "float32"), path)
    shape = (per_shard // (tokens * len(layers)), len(layers), tokens, d_in)
    examples = sum(shard["n_examples"] for shard in shards)
    if examples == 0 or examples != meta.get("n_examples", examples):
        raise UserError(
            f"{path / _SHARDS} counts {examples} examples, {METADATA} says {meta.get('n_examples', 'more than 0')}; wait "
            "until all are written, or copy the folder again"
        )
    parts: list[Part] = []
    columns: dict[str, list[Part]] = {"positions": [], "document_ids": []}
    done = 0
    for shard in shards:
        n = shard["n_examples"]
        parts.append(_layer_of(path / shard["name"], shape, n, layers.index(layer), values))
        columns["positions"].append(Positions(n * tokens, tokens))
        columns["document_ids"].append(Numbers(n * tokens, tokens, done))
        done += n
    return Layout(
        [*parts],
        d_in,
        values.read_as,
        columns,
        model=f"{meta.get('family', '')}:{meta.get('ckpt', 'unknown')}".removeprefix(":"),
        hook=f"layer {layer}",
        notes={"layer": layer, "tokens_per_example": tokens, "cls_token": meta["cls_token"]},
        files=[path / shard["name"] for shard in shards],
    )


def _layer_of(path: Path, shape: tuple[int, int, int, int], n: int, layer: int, values: Values) -> Placed:
    """One layer of the first `n` examples of a file, whose shape is (examples, layers, tokens, D)."""
    examples, _, tokens, d_in = shape
    size, wanted = file_size(path), math.prod(shape) * values.stored.itemsize
    if size != wanted or n > examples:
        raise UserError(
            f"{path} has {size} bytes and {n} examples; {METADATA} says {wanted} bytes for {examples} at most: copy the "
            "folder again"
        )
    block = tokens * d_in * values.stored.itemsize
    offsets = (np.arange(n, dtype=np.int64) * shape[1] + layer) * block
    return Placed(path, size, values, d_in, offsets, tokens)
