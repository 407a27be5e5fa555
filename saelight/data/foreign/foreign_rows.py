"""The rows of a layout, as training reads them.

Shapes: N rows, D d_in.
"""

import hashlib
import random
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from saelight.data.foreign.described import file_size
from saelight.data.foreign.layout import Address, Layout
from saelight.data.foreign.row_parts import Held, Joined, Part, Streamed
from saelight.data.moments import Sums
from saelight.data.shards.open_files import OpenFiles
from saelight.data.shards.reader import COLUMNS, DOCUMENT_IDS, first_decrease, runs
from saelight.data.stored_rows import Known, StoredRows
from saelight.errors import UserError

_HELD_BYTES = 1 << 30
"""Decoded rows that are held in memory at most."""
_SAMPLE_BYTES, _LEAST_ROWS, _BLOCK = 64 << 20, 1024, 64
"""What a fingerprint is taken from: all rows of what is smaller."""


class ForeignRows(StoredRows):
    """Rows in files of another layout. Nothing is written beside them.

    Raises:
        UserError: The layout cannot be read in place, which names the command that converts it; or its document ids go down.
    """

    def __init__(self, address: Address, layout: Layout) -> None:
        self.path = Path(str(address))
        self.d_in, self.dtype = layout.d_in, layout.dtype
        parts = _in_place(self.path, layout)
        self._held_bytes = sum(part.rows for part in parts if isinstance(part, Held)) * self.d_in * self.dtype.itemsize
        self._x = Joined(parts)
        self.n_rows = self._x.rows
        if self.n_rows == 0:
            raise UserError(f"{self.path} has no rows; write the activations again")
        self._columns = {name: Joined(layout.columns[name]) for name in COLUMNS if name in layout.columns}
        self._known = known(layout)
        self._files = OpenFiles()
        if DOCUMENT_IDS in self._columns:
            self._check_documents()

    def _check_documents(self) -> None:
        """Whether document ids go up, in runs of rows and from run to run."""
        last = None
        for start, n in runs(self.n_rows):
            ids_N = self.column(DOCUMENT_IDS, start, n)
            if (row := first_decrease(ids_N, last)) is not None:
                raise UserError(decreasing(self.where(start + row)))
            last = int(ids_N[-1])

    @property
    def columns(self) -> list[str]:
        return [*self._columns]

    @cached_property
    def fingerprint(self) -> str:
        """A hash over how many rows there are, their width and dtype, and the values of seeded blocks of them."""
        digest = hashlib.sha256(f"{self.n_rows} {self.d_in} {self.dtype}".encode())
        blocks = range(-(-self.n_rows // _BLOCK))
        wanted = max(_LEAST_ROWS, _SAMPLE_BYTES // (self.d_in * self.dtype.itemsize)) // _BLOCK
        # Python's generator: its numbers are the same in every version, and an identity outlives versions.
        chosen = blocks if len(blocks) <= wanted else sorted(random.Random(0).sample(blocks, wanted))
        for start in (block * _BLOCK for block in chosen):
            x_ND = torch.empty(min(_BLOCK, self.n_rows - start), self.d_in, dtype=self.dtype)
            self.read(start, x_ND)
            digest.update(x_ND.view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]

    @property
    def known(self) -> Known:
        return self._known

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    @property
    def sums(self) -> Sums | None:
        """Nobody has added them up."""
        return None

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        self._x.read(start, out, self._files)

    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of a column of `columns`: (n,), of its dtype in `COLUMNS`."""
        out_N = torch.empty(n, dtype=COLUMNS[name])
        self._columns[name].read(start, out_N, self._files)
        return out_N

    def will_need(self, start: int, n: int, column: str | None = None) -> None:
        """Ask the system to read rows [start, start + n), or these of a column, ahead."""
        (self._x if column is None else self._columns[column]).will_need(start, n, self._files)

    def where(self, row: int) -> str:
        """The file and the row in it."""
        return self._x.where(row)


def known(layout: Layout) -> Known:
    """What is known of all rows of a layout."""
    size = sum(file_size(file) for file in layout.files)
    return Known(layout.model, layout.hook, layout.notes, len(layout.files), size, [])


def decreasing(place: str) -> str:
    """The line for document ids that go down at `place`."""
    return (
        f"document_ids decrease at {place}: rows of one document must lie together, in order; sort the rows by document, or "
        "give the column another name"
    )


def _in_place(path: Path, layout: Layout) -> list[Part]:
    """The parts; what is decoded and small, in memory."""
    size = sum(part.rows for part in layout.parts) * layout.d_in * layout.dtype.itemsize
    parts: list[Part] = []
    for part in layout.parts:
        if isinstance(part, Part):
            parts.append(part)
        elif part.small and size <= _HELD_BYTES:
            parts.append(Held(_decoded(part, layout), part.place))
        else:
            raise UserError(f"{part.place} is {part.why}; write it once as shards: `saelight shards convert {path} OUT`")
    return parts


def _decoded(part: Streamed, layout: Layout) -> Tensor:
    x_ND, done = torch.empty(part.rows, layout.d_in, dtype=layout.dtype), 0
    for piece in part.pieces():
        x_ND[done : done + len(piece)] = piece
        done += len(piece)
    return x_ND
