"""Reading shards: the folder of safetensors files and `metadata.json` that docs/shards.md specifies.

Shapes: N rows, D d_in.
"""

import bisect
import hashlib
import math
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.moments import Sums
from saelight.data.remote.range_cache import RangeCache
from saelight.data.remote.remote_files import AHEAD_BYTES
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.header import Header, read_header
from saelight.data.shards.metadata import METADATA, Entry, read_metadata
from saelight.data.shards.open_files import Files, OpenFiles
from saelight.data.shards.remote_shards import open_remote
from saelight.data.shards.strict_json import shown
from saelight.data.stored_rows import Known, StoredRows
from saelight.errors import UserError

ACTIVATIONS = "activations"
DOCUMENT_IDS = "document_ids"
TOKEN_COLUMNS = {"token_ids": torch.int32, "positions": torch.int32, DOCUMENT_IDS: torch.int64}
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
_RUNS, _RUN = 64, 1024
_PIECE = 16 << 20


class Shard(NamedTuple):
    """One file, as its header describes it."""

    path: Path | Url
    size: int
    """Bytes."""
    rows: int
    columns: dict[str, int]
    """Byte offset in the file of every tensor, `activations` among them."""


def runs(n_rows: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of 64 runs of 1024, spread from the first row to the last; all rows where they are up to 65,536."""
    whole = n_rows <= _RUNS * _RUN
    starts = range(0, n_rows, _RUN) if whole else np.linspace(0, n_rows - _RUN, _RUNS).astype(np.int64).tolist()
    for start in starts:
        yield start, min(_RUN, n_rows - start)


def first_decrease(ids_N: Tensor, before: int | None) -> int | None:
    """The first place in `ids_N` (N,) of an id below the one before it, which of the first is `before`; None: they go up."""
    if len(ids_N) and before is not None and ids_N[0] < before:
        return 0
    down_N = ids_N[1:] < ids_N[:-1]
    return int(down_N.int().argmax()) + 1 if down_N.any() else None


def decreasing(place: str) -> str:
    """The line for document ids that go down at `place`."""
    return f"document_ids decrease at {place}: rows of one document must lie together, in order; harvest again"


class ShardedRows(StoredRows):
    """The rows of one shard folder, numbered across its files.

    Opening reads `metadata.json`, each file's header and, of document ids, up to 64 runs of 1024, never the rows. It raises
    `UserError` with one line when anything is missing, unreadable, damaged, mixed, or disagrees. Nothing is ever written
    beside the shards.

    Args:
        path: On a disk, or at a URL, of which the same bits come (`remote_shards.py`).
        cache: Where what is read from a URL is kept. None: nowhere.
    """

    def __init__(self, path: str | Path | Url, cache: RangeCache | None = None) -> None:
        self.path = located(path)
        self.metadata = read_metadata(path)
        self.d_in = self.metadata["d_in"]
        self.dtype = DTYPES[self.metadata["dtype"]]
        self.n_rows = self.metadata["rows"]
        entries = self.metadata["shards"]
        self._files: Files = OpenFiles()
        if isinstance(self.path, Url):
            headers, self._files = open_remote(self.path, entries, cache)
        else:
            headers = [read_header(self.path / entry["file"]) for entry in entries]
        self._shards = [self._check(entry, header) for entry, header in zip(entries, headers, strict=True)]
        self._ends = list(accumulate(shard.rows for shard in self._shards))
        if len(kinds := {tuple(sorted(shard.columns)) for shard in self._shards}) > 1:
            columns = " / ".join(map(", ".join, kinds))
            raise UserError(
                f"the shards at {path} differ in their columns ({columns}); copy the folder whole, or harvest again"
            )
        if DOCUMENT_IDS in self.columns:
            self._check_documents()

    def _check(self, entry: Entry, header: Header) -> Shard:
        """Compare one shard's header with its line in the metadata."""
        path = self.path / entry["file"]
        size, tensors = header
        if ACTIVATIONS not in tensors:
            raise UserError(f"shard {path} has no tensor {ACTIVATIONS!r}; copy it again, or harvest again")
        dtype, shape, *_ = tensors[ACTIVATIONS]
        if len(shape) != 2 or shape[1] != self.d_in:
            raise UserError(
                f"shards of mixed width at {self.path}: {path.name} holds {shown(shape)}, {METADATA} says d_in "
                f"{self.d_in}; keep each width in a folder of its own"
            )
        if dtype != SAFETENSORS_DTYPES[self.dtype]:
            raise UserError(
                f"shards of mixed dtype at {self.path}: {path.name} holds {shown(dtype)}, {METADATA} says "
                f"{self.metadata['dtype']}; keep each dtype in a folder of its own"
            )
        if (shape[0], size) != (entry["rows"], entry["bytes"]):
            raise UserError(
                f"shard {path} has {shape[0]} rows in {size} bytes, {METADATA} says {entry['rows']} in {entry['bytes']}; "
                "copy it again, or harvest again"
            )
        for name, tensor in tensors.items():
            # A name that a damaged byte has changed must not pass for a column that is not there.
            if name not in COLUMNS and name != ACTIVATIONS:
                raise UserError(f"shard {path} holds {shown(name)}, which no shard has; copy it again, or harvest again")
            of, sizes = (self.dtype, shape) if name == ACTIVATIONS else (COLUMNS[name], shape[:1])
            wanted = (SAFETENSORS_DTYPES[of], sizes, math.prod(sizes) * of.itemsize)
            if (tensor.dtype, tensor.shape, tensor.size) != wanted:
                raise UserError(
                    f"shard {path}: {name} must be {wanted[0]} {wanted[1]} in {wanted[2]} bytes, it is "
                    f"{shown(tensor.dtype)} {shown(tensor.shape)} in {tensor.size}; copy it again, or harvest again"
                )
        return Shard(path, size, shape[0], {name: tensor.start for name, tensor in tensors.items()})

    def _check_documents(self) -> None:
        """Whether document ids go up, in runs of rows and from run to run."""
        last = None
        for start, n in runs(self.n_rows):
            self.will_need(start, n, DOCUMENT_IDS)
        for start, n in runs(self.n_rows):
            ids = self.column(DOCUMENT_IDS, start, n)
            if (row := first_decrease(ids, last)) is not None:
                raise UserError(decreasing(self.where(start + row)))
            last = int(ids[-1])

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
    def known(self) -> Known:
        """What the metadata say of all rows."""
        meta = self.metadata
        size = sum(entry["bytes"] for entry in meta["shards"])
        return Known(meta["model"], meta["hook"], meta["source"], len(meta["shards"]), size, meta.get("dropped", []))

    @property
    def held_bytes(self) -> int:
        """What is read ahead from a URL; of a disk the system's own cache holds it."""
        return min(AHEAD_BYTES, self.known.bytes) if isinstance(self.path, Url) else 0

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

    def will_need(self, start: int, n: int, column: str | None = None) -> None:
        """Ask for rows [start, start + n), or these of a column, to be read ahead, where the system knows how (macOS does
        not)."""
        name = column or ACTIVATIONS
        width = self.d_in * self.dtype.itemsize if name == ACTIVATIONS else COLUMNS[name].itemsize
        for shard, first, count in self._pieces(start, n):
            self._files.will_need(shard.path, shard.size, shard.columns[name] + first * width, count * width)

    def whole(self, number: int, piece: Callable[[memoryview], object]) -> dict[str, Tensor]:
        """All tensors of a shard, by name, from its file, which is read once; `piece` is given its bytes, in order, as they
        come."""
        shard = self._shards[number]
        file = torch.empty(shard.size, dtype=torch.uint8)
        raw = file.numpy().data
        pieces = [(start, min(_PIECE, shard.size - start)) for start in range(0, shard.size, _PIECE)]
        for start, n in pieces:
            self._files.will_need(shard.path, shard.size, start, n)
        for start, n in pieces:
            self._files.read(shard.path, shard.size, start, raw[start : start + n])
            piece(raw[start : start + n])
        tensors = {}
        for name, start in shard.columns.items():
            shape, dtype = ((shard.rows, self.d_in), self.dtype) if name == ACTIVATIONS else ((shard.rows,), COLUMNS[name])
            part = file[start : start + math.prod(shape) * dtype.itemsize]
            # The format recommends alignment, and does not demand it.
            tensors[name] = (part.clone() if start % dtype.itemsize else part).view(dtype).view(shape)
        return tensors

    def stamps(self) -> list[str]:
        """What tells of each shard whether it is still the same file."""
        return [self._files.stamp(shard.path) for shard in self._shards]

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
            self._files.read(shard.path, shard.size, shard.columns[name] + first * width, memory[done:end])
            done = end
