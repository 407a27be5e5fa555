"""Where rows lie: at offsets of a file, in memory, or only one after the other in something that has to be decoded. A
column is rows of one number.

Shapes: N rows, W numbers of a row, R runs.
"""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saelight.data.foreign.values import Values
from saelight.data.shards.open_files import OpenFiles


class Part(ABC):
    """Rows that can be read by their number."""

    rows: int

    @abstractmethod
    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        """Fill `out`, (n, W) or (n,) and contiguous, with rows [start, start + n)."""

    def will_need(self, start: int, n: int, files: OpenFiles) -> None:  # noqa: B027 (only files are read ahead)
        """Hint that rows [start, start + n) are read next."""

    @abstractmethod
    def where(self, row: int) -> str:
        """A row's place in words."""


class Placed(Part):
    """Runs of rows at byte offsets of one file; within a run they lie side by side.

    Args:
        size: Bytes of the whole file.
        width: Numbers of a row (W).
        offsets_R: Where each run begins, (R,); an int when there is one run.
        rows_R: Rows of each run.
    """

    def __init__(
        self, path: Path, size: int, values: Values, width: int, offsets_R: np.ndarray | int, rows_R: np.ndarray | int
    ) -> None:
        self.path, self._size, self.values, self.width = path, size, values, width
        self._row_bytes = width * values.stored.itemsize
        offsets_R, rows_R = np.broadcast_arrays(np.atleast_1d(np.int64(offsets_R)), np.atleast_1d(np.int64(rows_R)))
        offsets_R, rows_R = offsets_R[rows_R > 0], rows_R[rows_R > 0]
        # Runs that follow each other in the file are one.
        begins_R = np.ones(len(rows_R), dtype=bool)
        begins_R[1:] = offsets_R[1:] != offsets_R[:-1] + rows_R[:-1] * self._row_bytes
        self._offsets_R = offsets_R[begins_R]
        self._ends_R = rows_R.cumsum()[np.append(begins_R[1:], True)] if len(rows_R) else rows_R
        self.rows = int(rows_R.sum())

    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        target = out.reshape(-1)
        raw = target.view(torch.uint8).numpy() if self.values.as_stored else np.empty(len(out) * self._row_bytes, np.uint8)
        done = 0
        for offset, length in self._spans(start, len(out)):
            files.read(self.path, self._size, offset, raw[done : done + length].data)
            done += length
        if not self.values.as_stored:
            # A float64 beyond float32 becomes infinite, which is found as every infinity is.
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(target.numpy(), raw.view(self.values.stored), casting="unsafe")

    def will_need(self, start: int, n: int, files: OpenFiles) -> None:
        for offset, length in self._spans(start, n):
            files.will_need(self.path, self._size, offset, length)

    def where(self, row: int) -> str:
        return f"{self.path}, row {row}"

    def _spans(self, start: int, n: int) -> Iterator[tuple[int, int]]:
        """Rows [start, start + n) as (byte offset, bytes)."""
        run = int(np.searchsorted(self._ends_R, start, side="right"))
        while n > 0:
            begin = int(self._ends_R[run - 1]) if run else 0
            count = min(n, int(self._ends_R[run]) - start)
            yield int(self._offsets_R[run]) + (start - begin) * self._row_bytes, count * self._row_bytes
            start, n, run = start + count, n - count, run + 1


class Held(Part):
    """Rows in memory: (N, W), or (N,)."""

    def __init__(self, x_N: Tensor, place: object) -> None:
        self._x_N, self._place, self.rows = x_N, place, len(x_N)

    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        # numpy, on this thread alone, as the streams want it.
        source = self._x_N[start : start + len(out)]
        np.copyto(out.reshape(-1).view(torch.uint8).numpy(), source.reshape(-1).view(torch.uint8).numpy())

    def where(self, row: int) -> str:
        return f"{self._place}, row {row}"


class Positions(Part):
    """The column of places in runs of one length."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self._length = rows, length

    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        np.copyto(out.numpy(), np.arange(start, start + len(out)) % self._length, casting="unsafe")

    def where(self, row: int) -> str:
        return f"row {row}"


class Numbers(Part):
    """The column of numbers of runs of one length, from `first` on."""

    def __init__(self, rows: int, length: int, first: int) -> None:
        self.rows, self._length, self._first = rows, length, first

    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        np.copyto(out.numpy(), np.arange(start, start + len(out)) // self._length + self._first, casting="unsafe")

    def where(self, row: int) -> str:
        return f"row {row}"


class Joined(Part):
    """Parts one after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [part for part in parts if part.rows]
        self._ends = list(accumulate(part.rows for part in self._parts))
        self.rows = self._ends[-1] if self._ends else 0

    def read(self, start: int, out: Tensor, files: OpenFiles) -> None:
        done = 0
        for part, first, n in self._pieces(start, len(out)):
            part.read(first, out[done : done + n], files)
            done += n

    def will_need(self, start: int, n: int, files: OpenFiles) -> None:
        for part, first, count in self._pieces(start, n):
            part.will_need(first, count, files)

    def where(self, row: int) -> str:
        ((part, first, _),) = self._pieces(row, 1)
        return part.where(first)

    def _pieces(self, start: int, n: int) -> Iterator[tuple[Part, int, int]]:
        """Rows [start, start + n) as (part, first row in it, rows)."""
        i = bisect.bisect_right(self._ends, start)
        while n > 0:
            part, first = self._parts[i], start - (self._ends[i] - self._parts[i].rows)
            count = min(n, part.rows - first)
            yield part, first, count
            start, n, i = start + count, n - count, i + 1


class Streamed:
    """Rows that come only in their order, each piece (n, W) as it is decoded.

    Args:
        why: Why they are not read in place, as the end of "X is …".
        small: Whether they may be held in memory instead, if they are not too many.
    """

    def __init__(
        self, rows: int, place: object, why: str, pieces: Callable[[], Iterator[Tensor]], small: bool = False
    ) -> None:
        self.rows, self.place, self.why, self.pieces, self.small = rows, place, why, pieces, small
