"""`metadata.json` of a shard folder: what may stand in it, its checksum, and reading it (docs/shards.md).

Shapes: D d_in.
"""

import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from saelight.data.remote.remote_store import store_of
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.disk import check_folder, is_there, reading
from saelight.data.shards.strict_json import parse, shown, validated
from saelight.errors import UserError

FORMAT = "saelight-shards"
VERSION = 1
METADATA = "metadata.json"
FIRST = "activations-00000.safetensors"
"""The first shard, as saelight names it."""
_MAX_BYTES = 100_000_000
_MAX_NAME = 255
_ZEROS = "0" * 64
_ROUNDING = 1e-9


def plain_name(name: str) -> str:
    if name in ("", ".", "..") or not name.isprintable() or len(os.fsencode(name)) > _MAX_NAME or {"/", "\\"} & {*name}:
        raise ValueError(f"a shard's file must be a plain name in this folder, it is {shown(name)}")
    return name


def _noted(source: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(source.get("filtered", []), list):
        raise ValueError(f"filtered must be a list, it is {shown(source['filtered'])}")
    return source


Integer = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(ge=1, lt=1 << 63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Entry(TypedDict):
    """One shard's line."""

    file: Annotated[str, AfterValidator(plain_name)]
    rows: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class StoredSums(TypedDict):
    """What the rows add up to: how many, Σ‖x‖², Σx (D,)."""

    count: Positive
    sum_of_squares: NotNegative
    sum: list[Finite]


class Reason(TypedDict):
    """The rows left out for one reason."""

    rows: Count
    share: NotNegative
    positions: dict[str, Count]


class Report(TypedDict):
    """What a filter of rows left out (`RowFilter.report`)."""

    max_norm: NotNegative | None
    skip_positions: Count
    drop_tokens: list[Integer]
    limit: NotNegative | None
    median_norm: NotNegative
    rows_seen: Count
    rows_dropped: Count
    share: NotNegative
    reasons: dict[str, Reason]
    norm_documents: Count
    norm_places: list[dict[str, Integer]]


class Metadata(TypedDict):
    """All of the file, its checksum apart."""

    format: str
    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    model: str
    hook: str
    dtype: Literal["bfloat16", "float16", "float32"]
    d_in: Positive
    rows: Positive
    shards: list[Entry]
    sums: StoredSums
    source: Annotated[dict[str, Any], AfterValidator(_noted)]
    dropped: NotRequired[list[Report]]


def _agreeing(meta: Metadata) -> Metadata:
    """What single fields cannot say: that they are of the same rows."""
    sums, rows = meta["sums"], meta["rows"]
    if (held := sum(entry["rows"] for entry in meta["shards"])) != rows:
        raise ValueError(f"it says {rows} rows, its shards hold {held}")
    if twice := [shown(name) for name, n in Counter(entry["file"] for entry in meta["shards"]).items() if n > 1]:
        raise ValueError(f"it lists {twice[0]} twice")
    if sums["count"] != rows:
        raise ValueError(f"sums.count is {sums['count']}, rows is {rows}")
    if len(sums["sum"]) != meta["d_in"]:
        raise ValueError(f"sums.sum has {len(sums['sum'])} numbers, d_in is {meta['d_in']}")
    # ‖Σx‖² ≤ N Σ‖x‖² (Cauchy and Schwarz), whatever the rows.
    if math.hypot(*sums["sum"]) > math.sqrt(rows) * math.sqrt(sums["sum_of_squares"]) * (1 + _ROUNDING):
        raise ValueError("no rows have these sums: sum is too large beside sum_of_squares")
    return meta


_SCHEMA = TypeAdapter(Annotated[Metadata, AfterValidator(_agreeing)])


def sealed(meta: dict[str, Any]) -> bytes:
    """The file for this metadata: JSON whose last key is the checksum of the file, taken with zeros in its place."""
    text = json.dumps({key: meta[key] for key in meta if key != "sha256"} | {"sha256": _ZEROS}, indent=1, allow_nan=False)
    before, _, after = text.rpartition(_ZEROS)
    return f"{before}{hashlib.sha256(text.encode()).hexdigest()}{after}".encode()


def is_shards(folder: Path) -> bool:
    """Whether `folder` has the metadata of shards, whole or damaged, and not somebody else's file of that name."""
    if not os.path.lexists(folder / METADATA):
        return False
    if os.path.lexists(folder / FIRST):
        return True
    try:
        with reading(folder / METADATA) as file:
            meta = parse(file.read(_MAX_BYTES))
    except ValueError:  # a `UserError` is one
        return True
    return not isinstance(meta, dict) or "format" in meta


def read_metadata(path: str | Path | Url) -> Metadata:
    """`metadata.json` of the shard folder `path`. Raises `UserError` when it is missing, damaged, too new, or says what no
    shards can be."""
    path = located(path)
    file = path / METADATA
    raw = _read_remote(path) if isinstance(path, Url) else _read(path)
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        meta = parse(raw)
    except ValueError as e:
        raise UserError(f"{file} is no JSON ({e}); copy it again, or harvest again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise UserError(f"{file} does not say format {FORMAT!r}; these are not saelight's shards")
    version = meta.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{path} was written by a newer saelight: version {version}, this one reads up to {VERSION}; upgrade saelight"
        )
    _check_seal(file, raw, meta.get("sha256"))
    try:
        return validated(_SCHEMA, meta)
    except ValueError as e:
        raise UserError(f"{file} is damaged: {e}; copy it again, or harvest again") from None


def _read(folder: Path) -> bytes:
    check_folder(folder)
    if not is_there(folder / METADATA):
        raise UserError(
            f"no shards at {folder}: {METADATA} is missing; point to a folder that `saelight shards harvest` wrote"
        )
    with reading(folder / METADATA) as opened:
        return opened.read(_MAX_BYTES + 1)


def _read_remote(folder: Url) -> bytes:
    store = store_of(folder)
    if not store.has(folder / METADATA):
        raise UserError(
            f"no shards at {folder}: {METADATA} is missing; what other tools wrote is read from disks only: copy it to one, "
            "or make shards of it there: `saelight shards convert SOURCE URL`"
        )
    return store.read(folder / METADATA)


def _check_seal(file: Path | Url, raw: bytes, said: object) -> None:
    if said is None:
        raise UserError(f"{file} has no checksum of itself (sha256), as early ones had none; harvest the shards again")
    before, found, after = raw.rpartition(f'"{said}"'.encode(errors="replace"))
    if not found or hashlib.sha256(before + f'"{_ZEROS}"'.encode() + after).hexdigest() != said:
        raise UserError(f"{file} is damaged or was edited: its checksum does not hold; copy it again, or harvest again")
