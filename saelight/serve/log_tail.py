"""Logs read as they grow: each byte once, however long they are."""

import csv
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from saelight.report.curves import COLUMNS, Curve, number

_BLOCK = 2**20
"""Bytes read at once."""
Row = tuple[float | None, ...]


class Thinning:
    """At most about `most` of rows that come one after the other, whose second column is what must not lose a spike.

    Stretches of equal numbers of rows keep the lowest and the highest; when there are too many, two become one. So it costs
    a constant time a row, and what is old is no coarser than what is new. The first row and the last are always there.
    """

    def __init__(self, most: int) -> None:
        self._most = max(4, most // 2)
        self._width = 1
        """Rows of a whole stretch."""
        self._stretches: list[tuple[int, Row, int, Row]] = []
        """Number and row of the lowest, and of the highest."""
        self._rows = 0
        self._first: Row | None = None
        self._last: Row | None = None

    def add(self, row: Row) -> None:
        """Take one more row."""
        self._first, self._last = self._first or row, row
        one = (self._rows, row, self._rows, row)
        if self._rows % self._width and self._stretches:
            self._stretches[-1] = _merged(self._stretches[-1], one)
        else:
            self._stretches.append(one)
        self._rows += 1
        if len(self._stretches) > self._most:
            pairs = zip(self._stretches[::2], [*self._stretches[1::2], None], strict=False)
            self._stretches = [low if high is None else _merged(low, high) for low, high in pairs]
            self._width *= 2

    def rows(self) -> list[Row]:
        """What is kept, in its order."""
        kept = {i: row for stretch in self._stretches for i, row in (stretch[:2], stretch[2:])}
        if self._first is not None and self._last is not None:
            kept |= {0: self._first, self._rows - 1: self._last}
        return [kept[i] for i in sorted(kept)]


def _merged(one: tuple[int, Row, int, Row], other: tuple[int, Row, int, Row]) -> tuple[int, Row, int, Row]:
    low = min((one[:2], other[:2]), key=lambda found: _level(found[1], float("inf")))
    high = max((one[2:], other[2:]), key=lambda found: _level(found[1], float("-inf")))
    return (*low, *high)


def _level(row: Row, unknown: float) -> float:
    return unknown if row[1] is None else row[1]


class CurveTail:
    """The training curve of one SAE's `metrics.csv`, followed. A file that was replaced, as a resume does, is read anew."""

    def __init__(self, path: Path, most: int) -> None:
        self.path, self._most = path, most
        self._turn = threading.Lock()
        self._begin((0, 0))

    def _begin(self, identity: tuple[int, int]) -> None:
        self._identity, self._offset, self._rest = identity, 0, b""
        self._places: list[int | None] = []
        self._thinning = Thinning(self._most)

    def read(self) -> Curve | None:
        """The curve with what has been logged since the last call; None while there is no row. Safe from several threads."""
        with self._turn:
            return self._read()

    def _read(self) -> Curve | None:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._identity or status.st_size < self._offset:
                    self._begin(identity)
                file.seek(self._offset)
                while block := file.read(_BLOCK):
                    self._offset += len(block)
                    self._take(block)
        except OSError:
            return None
        rows = self._thinning.rows()
        return {key: [row[i] for row in rows] for i, key in enumerate(("step", *COLUMNS))} if rows else None

    def _take(self, block: bytes) -> None:
        whole, end, rest = block.rpartition(b"\n")
        if not end:
            # A line has no end yet; one without any is no log's.
            self._rest = (self._rest + block)[-_BLOCK:]
            return
        lines = (self._rest + whole).decode(errors="replace").replace("\0", "").splitlines()
        self._rest = rest
        try:
            for line in csv.reader(lines):
                self._row(line)
        except csv.Error:
            return  # what follows a damaged stretch comes with the next block

    def _row(self, line: Sequence[str]) -> None:
        if not self._places:
            self._places = [line.index(name) if name in line else None for name in ("step", *COLUMNS.values())]
            return
        step, loss, *others = (
            None if place is None or place >= len(line) else number(line[place]) for place in self._places
        )
        place = self._places[1]
        logged = place is not None and place < len(line) and line[place]
        if step is not None and logged:
            self._thinning.add((step, loss, *others))


def text_from(path: Path, offset: int | None, most: int) -> tuple[str, int]:
    """At most `most` bytes of a text file from `offset` on (None: its last ones), and the offset after them."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - most) if offset is None or not 0 <= offset <= size else offset
        file.seek(start)
        found = file.read(most)
    return found.decode(errors="replace"), start + len(found)
