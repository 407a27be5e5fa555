"""Reading shards: the folder of safetensors files and `metadata.json` that docs/shards.md specifies.

Shapes: N rows, D d_in.
"""

import bisect
import hashlib
import json
import math
import os
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.data.moments import Sums
from saelight.errors import UserError

FORMAT = "saelight-shards"
VERSION = 1
METADATA = "metadata.json"
ACTIVATIONS = "activations"
TOKEN_COLUMNS = {"token_ids": torch.int32, "positions": torch.int32, "document_ids": torch.int64}
"""What is known of each row's token: the same for all hooks."""
NORMS = "norms"
COLUMNS = TOKEN_COLUMNS | {NORMS: torch.float32}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SAFETENSORS_DTYPES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.int64: "I64",
}
_KEYS = ("model", "hook", "dtype", "d_in", "rows", "shards", "sums", "source")
_SHARD_KEYS = {"file", "rows", "bytes", "sha256"}
_MAX_HEADER = 100_000_000  # safetensors' own limit
_OPEN_FILES = 256


class Shard(NamedTuple):
    """One file, as its header describes it."""

    path: Path
    rows: int
    columns: dict[str, int]
    """Byte offset in the file of every tensor, `activations` among them."""


def read_metadata(path: str | Path) -> dict[str, Any]:
    """`metadata.json` of the shard folder `path`. Raises `UserError` when it is missing, broken or too new."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no shards at {path}: there is no such folder; make them with `saelight shards harvest`")
    try:
        meta = json.loads((path / METADATA).read_text())
    except FileNotFoundError:
        raise UserError(
            f"no shards at {path}: {METADATA} is missing; point to a folder that `saelight shards harvest` wrote"
        ) from None
    except ValueError as e:
        raise UserError(f"{path / METADATA} is no JSON ({e}); harvest the shards again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise UserError(f"{path / METADATA} does not say format {FORMAT!r}; these are not saelight's shards")
    if not isinstance(version := meta.get("version"), int) or version > VERSION:
        raise UserError(
            f"{path} was written by a newer saelight: version {version}, this one reads up to {VERSION}; upgrade saelight"
        )
    if missing := [key for key in _KEYS if key not in meta]:
        raise UserError(f"{path / METADATA} lacks {', '.join(missing)}; harvest the shards again")
    if meta["dtype"] not in DTYPES:
        raise UserError(f"{path / METADATA}: dtype {meta['dtype']!r} is none of {', '.join(DTYPES)}")
    if any(not isinstance(entry, dict) or not entry.keys() >= _SHARD_KEYS for entry in meta["shards"]):
        raise UserError(f"{path / METADATA} does not say file, rows, bytes and sha256 of every shard; harvest again")
    return meta


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file: name -> dtype, shape, start (byte offset in the file).

    Raises `UserError` when the file is missing, no safetensors file, or of another size than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _MAX_HEADER))
    except FileNotFoundError:
        raise UserError(
            f"shard {path.name} is missing from {path.parent}; copy the folder whole, or harvest again"
        ) from None
    if size < 8 or len(text) < length:
        raise UserError(f"shard {path} is truncated: {size} bytes end inside its header; copy it again")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            name: {"dtype": t["dtype"], "shape": t["shape"], "start": 8 + length + t["data_offsets"][0]}
            for name, t in header.items()
        }
        end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"shard {path} is no safetensors file; copy it again, or harvest again") from None
    if size != end:
        state = "truncated" if size < end else "too long"
        raise UserError(f"shard {path} is {state}: {size} bytes, its header says {end}; copy or harvest it again")
    return tensors


class ShardedRows:
    """The rows of one shard folder, numbered across its files.

    Opening reads `metadata.json` and each file's header, never the data, and raises `UserError` with one line when
    anything is missing, truncated, mixed, or disagrees. Nothing is ever written beside the shards.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata = read_metadata(path)
        self.d_in: int = self.metadata["d_in"]
        self.dtype = DTYPES[self.metadata["dtype"]]
        self.n_rows: int = self.metadata["rows"]
        if self.n_rows == 0:
            raise UserError(f"the shards at {path} are empty (0 rows); harvest some text")
        self._shards = [self._check(entry) for entry in self.metadata["shards"]]
        self._ends = list(accumulate(shard.rows for shard in self._shards))
        if (held := sum(shard.rows for shard in self._shards)) != self.n_rows:
            raise UserError(
                f"{self.path / METADATA} says {self.n_rows} rows, its shards hold {held}; copy the folder "
                "whole, or harvest again"
            )
        if len(kinds := {tuple(sorted(shard.columns)) for shard in self._shards}) > 1:
            raise UserError(f"the shards at {path} differ in their columns: {' / '.join(map(', '.join, kinds))}")
        self._file = lru_cache(_OPEN_FILES)(_File)

    def _check(self, entry: dict[str, Any]) -> Shard:
        """Compare one shard's header with its line in the metadata."""
        path = self.path / entry["file"]
        tensors = read_header(path)
        if ACTIVATIONS not in tensors:
            raise UserError(f"shard {path} has no tensor {ACTIVATIONS!r}; it has {', '.join(tensors) or 'none'}")
        shape, dtype = tensors[ACTIVATIONS]["shape"], tensors[ACTIVATIONS]["dtype"]
        if len(shape) != 2 or shape[1] != self.d_in:
            raise UserError(
                f"shards of mixed width at {self.path}: {path.name} holds {shape}, {METADATA} says d_in "
                f"{self.d_in}; keep each width in a folder of its own"
            )
        if dtype != SAFETENSORS_DTYPES[self.dtype]:
            raise UserError(
                f"shards of mixed dtype at {self.path}: {path.name} holds {dtype}, {METADATA} says "
                f"{self.metadata['dtype']}; keep each dtype in a folder of its own"
            )
        if shape[0] != entry["rows"] or path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"shard {path} has {shape[0]} rows in {path.stat().st_size} bytes, {METADATA} says "
                f"{entry['rows']} in {entry['bytes']}; copy it again, or harvest again"
            )
        columns = {ACTIVATIONS: tensors[ACTIVATIONS]["start"]}
        for name, want in COLUMNS.items():
            if name in tensors:
                if (tensors[name]["dtype"], tensors[name]["shape"]) != (SAFETENSORS_DTYPES[want], shape[:1]):
                    raise UserError(
                        f"shard {path}: {name} must be {SAFETENSORS_DTYPES[want]} {shape[:1]}, it is "
                        f"{tensors[name]['dtype']} {tensors[name]['shape']}"
                    )
                columns[name] = tensors[name]["start"]
        return Shard(path, shape[0], columns)

    @property
    def columns(self) -> list[str]:
        """Which of token_ids, positions, document_ids and norms the shards have."""
        return [name for name in COLUMNS if name in self._shards[0].columns]

    @property
    def fingerprint(self) -> str:
        """A hash over the shards' checksums, in order."""
        joined = "".join(entry["sha256"] for entry in self.metadata["shards"])
        return hashlib.sha256(joined.encode()).hexdigest()[:32]

    @property
    def source(self) -> dict[str, Any]:
        """Provenance: model, hook, dtype, rows, and whatever the harvest noted."""
        return {key: self.metadata[key] for key in ("model", "hook", "dtype", "rows")} | self.metadata["source"]

    @property
    def sums(self) -> Sums:
        """The exact sums over all rows, from the metadata."""
        sums = self.metadata["sums"]
        return Sums(sums["count"], sums["sum_of_squares"], torch.tensor(sums["sum"], dtype=torch.float64))

    @property
    def mean_square_norm(self) -> float:
        """The mean of ‖x‖² over all rows."""
        return self.sums.sum_of_squares / self.sums.rows

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        self._read(ACTIVATIONS, start, out)

    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of a column of `columns`: (n,), of its dtype in `COLUMNS`."""
        out = torch.empty(n, dtype=COLUMNS[name])
        self._read(name, start, out)
        return out

    def will_need(self, start: int, n: int) -> None:
        """Ask the system to read rows [start, start + n) ahead, where it knows how (macOS does not)."""
        if hasattr(os, "posix_fadvise"):
            for shard, first, count in self._pieces(start, n):
                width = self.d_in * self.dtype.itemsize
                os.posix_fadvise(
                    self._file(shard.path).fd,
                    shard.columns[ACTIVATIONS] + first * width,
                    count * width,
                    os.POSIX_FADV_WILLNEED,
                )

    def where(self, row: int) -> str:
        """The shard file and the row in it."""
        ((shard, first, _),) = self._pieces(row, 1)
        return f"{shard.path}, row {first}"

    def _pieces(self, start: int, n: int) -> list[tuple[Shard, int, int]]:
        """Rows [start, start + n) as (shard, first row in it, rows)."""
        pieces, i = [], bisect.bisect_right(self._ends, start)
        while n > 0:
            shard, first = self._shards[i], start - (self._ends[i] - self._shards[i].rows)
            count = min(n, shard.rows - first)
            if count:
                pieces.append((shard, first, count))
            start, n, i = start + count, n - count, i + 1
        return pieces

    def _read(self, name: str, start: int, out: Tensor) -> None:
        width = math.prod(out.shape[1:]) * out.dtype.itemsize
        memory = out.reshape(-1).view(torch.uint8).numpy().data
        done = 0
        for shard, first, count in self._pieces(start, len(out)):
            end = done + count * width
            offset = shard.columns[name] + first * width - done
            file = self._file(shard.path)
            while done < end:
                if not (got := os.preadv(file.fd, [memory[done:end]], offset + done)):
                    raise UserError(f"shard {shard.path} became shorter while it was read; copy it again")
                done += got

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = lru_cache(_OPEN_FILES)(_File)


class _File:
    """A file descriptor that closes with its last reference: a thread that reads outlives the cache's eviction."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone when the interpreter ends
        if self.fd >= 0:
            close(self.fd)
