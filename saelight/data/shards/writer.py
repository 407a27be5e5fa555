"""Writing shards: rows stream in, a whole folder or none comes out (docs/shards.md).

Shapes: N rows, D d_in.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelight.data.finite import first_non_finite
from saelight.data.norms import row_squares
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.destination import Destination, DiskFolder, RemoteFolder
from saelight.data.shards.metadata import FORMAT, VERSION, sealed
from saelight.data.shards.reader import (
    ACTIVATIONS,
    DOCUMENT_IDS,
    DTYPES,
    NORMS,
    SAFETENSORS_DTYPES,
    TOKEN_COLUMNS,
    decreasing,
    first_decrease,
)
from saelight.errors import UserError
from saelight.files import safetensors_header

SHARD_BYTES = 256 << 20


class ShardWriter:
    """Writes rows to `<out>.partial` and renames the folder to `out` when its `with` block ends well; at a URL it writes to
    `out` itself, and `metadata.json`, without which there are no shards, last.

    On any exception, Ctrl-C included, what was written is removed. What a killed process left is overwritten.

    Args:
        out: The folder to make, on a disk or at a URL. `UserError` when it exists.
        model: The model's name, for provenance.
        hook: The dotted path of the module, for provenance.
        dtype: "bfloat16", "float16" or "float32".
        d_in: Width of a row.
        rows_per_shard: Rows of a file; they wait in memory until it is full. Default: 256 MiB of them.
        source: Further provenance, plain JSON data.
    """

    def __init__(
        self,
        out: str | Path | Url,
        *,
        model: str,
        hook: str,
        dtype: str,
        d_in: int,
        rows_per_shard: int | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.out = located(out)
        self._to = self._destination()
        self.source = dict(source or {})
        self.dropped: list[Mapping[str, Any]] = []
        """Reports on rows that were left out on the way here (`Dropped.report`), the oldest first."""
        self.n_rows = 0
        self.position: dict[str, Any] | None = None
        """Where whoever makes the rows is, as plain data: what a part of a folder notes, to go on from."""
        if dtype not in DTYPES or d_in < 1:
            raise UserError(f"shards hold {', '.join(DTYPES)} rows of at least one number, not {dtype!r} rows of {d_in}")
        self._meta = {"format": FORMAT, "version": VERSION, "model": model, "hook": hook, "dtype": dtype, "d_in": d_in}
        self._dtype = DTYPES[dtype]
        self._per_shard = rows_per_shard or max(1, SHARD_BYTES // (d_in * self._dtype.itemsize))
        self._shards: list[dict[str, Any]] = []
        self._squares, self._sum_D = 0.0, torch.zeros(d_in, dtype=torch.float64)
        self._x_ND = torch.empty(0, d_in, dtype=self._dtype)
        self._columns: dict[str, Tensor] = {}
        self._begun = False
        self._waiting = 0
        self._last_document: int | None = None

    def __enter__(self) -> "ShardWriter":
        self._to.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._to.end()

    def _destination(self) -> Destination:
        return RemoteFolder(self.out) if isinstance(self.out, Url) else DiskFolder(self.out)

    def append(self, x_ND: Tensor | np.ndarray, **columns: Tensor | np.ndarray) -> None:
        """Add rows (N, d_in), any number of any float dtype; stored as the folder's.

        Args:
            x_ND: The rows.
            **columns: token_ids, positions, document_ids, each (N,): the same ones in every call.

        Raises:
            UserError: A NaN or an infinity, which is named; rows of another width; a column that there is none of.
        """
        self._append(_tensor(x_ND), {name: _tensor(column) for name, column in columns.items()})

    def _append(self, x_ND: Tensor, columns: dict[str, Tensor]) -> None:
        d_in = self._meta["d_in"]
        if x_ND.ndim != 2 or x_ND.shape[1] != d_in or not x_ND.is_floating_point():
            raise UserError(f"rows must be floats of shape (N, {d_in}), these are {x_ND.dtype} of {tuple(x_ND.shape)}")
        if odd := [name for name in columns if name not in TOKEN_COLUMNS]:
            raise UserError(f"shards have no column {odd[0]!r}; they may have {', '.join(TOKEN_COLUMNS)}")
        x_ND = x_ND.detach().to("cpu", self._dtype).contiguous()
        if (bad := first_non_finite(x_ND)) is not None:
            dtype = self._meta["dtype"]
            wider = "" if dtype == "float32" else ", or store it as float32"
            raise UserError(
                f"NaN or infinite activation in row {self.n_rows + bad} of {self._meta['hook']} (stored as {dtype}); check "
                f"the model{wider}"
            )
        if not self._begun:
            self._columns = {name: torch.empty(0, dtype=TOKEN_COLUMNS[name]) for name in columns}
        if columns.keys() != self._columns.keys() or any(len(c) != len(x_ND) for c in columns.values()):
            raise ValueError("every append must bring the same columns, one entry per row")
        if len(x_ND) and DOCUMENT_IDS in columns:
            ids_N = columns[DOCUMENT_IDS]
            if (down := first_decrease(ids_N, self._last_document)) is not None:
                raise UserError(decreasing(f"row {self.n_rows + down} of {self.out}"))
            self._last_document = int(ids_N[-1])
        self._begun = self._begun or len(x_ND) > 0
        self.n_rows += len(x_ND)
        while len(x_ND):
            n = min(len(x_ND), self._per_shard - self._waiting)
            self._keep(x_ND[:n], {name: c[:n] for name, c in columns.items()})
            x_ND, columns = x_ND[n:], {name: c[n:] for name, c in columns.items()}
            if self._waiting == self._per_shard:
                self._flush()

    def _keep(self, x_ND: Tensor, columns: dict[str, Tensor]) -> None:
        """Copy rows into the waiting shard, which grows by doubling up to its full size."""
        stop = self._waiting + len(x_ND)
        if stop > len(self._x_ND):
            size = min(self._per_shard, max(stop, 2 * len(self._x_ND)))
            self._x_ND = _grown(self._x_ND, size, self._waiting)
            self._columns = {name: _grown(c, size, self._waiting) for name, c in self._columns.items()}
        self._x_ND[self._waiting : stop] = x_ND
        for name, column in columns.items():
            self._columns[name][self._waiting : stop] = column
        self._waiting = stop

    def _flush(self) -> None:
        """Write the waiting rows as one file."""
        x_ND = self._x_ND[: self._waiting]
        sums = shard_sums(x_ND)
        self._squares, self._sum_D = self._squares + sums.squares, self._sum_D + sums.sum_D
        name = self._to.name(len(self._shards))
        # Columns first, widest items first: every tensor is then aligned to its own item size.
        tensors = {name: c[: self._waiting] for name, c in self._columns.items()}
        tensors |= {NORMS: sums.norms_N, ACTIVATIONS: x_ND}
        tensors = dict(sorted(tensors.items(), key=lambda item: (item[0] == ACTIVATIONS, -item[1].dtype.itemsize)))
        pieces = _safetensors(tensors)
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        self._to.write(name, pieces)
        size = sum(len(piece) for piece in pieces)
        self._shards.append({"file": name, "rows": len(x_ND), "bytes": size, "sha256": digest.hexdigest()})
        self._waiting = 0

    def _finish(self) -> None:
        if self.n_rows == 0:
            raise UserError(f"no rows to write to {self.out}: there was no text, or every token was dropped")
        if self._waiting:
            self._flush()
        sums = {"count": self.n_rows, "sum_of_squares": self._squares, "sum": self._sum_D.tolist()}
        meta = self._meta | {"rows": self.n_rows, "shards": self._shards, "sums": sums, "source": self.source}
        if self.dropped:
            meta["dropped"] = self.dropped
        self._to.finish(sealed(meta))


class ShardSums(NamedTuple):
    """What the format keeps of one shard's rows beside them, computed in float64."""

    squares: float
    """Σ‖x‖²."""
    sum_D: Tensor
    """Σx, (D,)."""
    norms_N: Tensor
    """Each row's norm, rounded to float32: (N,)."""


def shard_sums(x_ND: Tensor) -> ShardSums:
    """The sums and norms of one shard's rows."""
    squares_N, sum_D = row_squares(x_ND), torch.zeros(x_ND.shape[1], dtype=torch.float64)
    for piece in x_ND.split(1 << 14):
        sum_D += piece.double().sum(0)
    return ShardSums(squares_N.sum().item(), sum_D, squares_N.sqrt().float())


def _safetensors(tensors: dict[str, Tensor]) -> list[memoryview]:
    """A file of `tensors` in their order, as pieces of memory."""
    sizes = {name: t.numel() * t.dtype.itemsize for name, t in tensors.items()}
    header = safetensors_header(
        {name: (SAFETENSORS_DTYPES[t.dtype], tuple(t.shape), sizes[name]) for name, t in tensors.items()}
    )
    return [memoryview(header), *(t.reshape(-1).view(torch.uint8).numpy().data for t in tensors.values())]


def _tensor(x: Tensor | np.ndarray) -> Tensor:
    """An array as a tensor; copied where it lies in read-only memory or in an order of bytes that torch does not know."""
    if isinstance(x, Tensor):
        return x
    return torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), ["C", "W"]))


def _grown(old: Tensor, size: int, keep: int) -> Tensor:
    new = old.new_empty(size, *old.shape[1:])
    new[:keep] = old[:keep]
    return new
