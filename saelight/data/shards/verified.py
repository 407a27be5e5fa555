"""How far a check of a folder has come, for one that was interrupted to go on: kept in the user's cache, never beside the
shards, and for long checks only.

Shapes: D d_in.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from saelight.data.shards.reader import ShardedRows
from saelight.files import write_text

SECONDS = 10.0
"""A check that takes longer is written down, as often."""


class Verified:
    """The first shards of a folder, found whole, and what their rows add up to.

    What an earlier check has found counts as long as none of these files has changed its size or its time since.
    """

    def __init__(self, rows: ShardedRows) -> None:
        self._stamps = rows.stamps()
        name = hashlib.sha256(f"{rows.fingerprint} {rows.path}".encode()).hexdigest()[:32]
        self._file = _cache() / "verify" / f"{name}.json"
        self._written = time.monotonic()
        self.shards, self.squares = 0, 0.0
        self.sum_D: Tensor = torch.zeros(rows.d_in, dtype=torch.float64)
        self.last_document: int | None = None
        # Damaged notes are none.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._file.read_text())
            sum_D = torch.tensor(known["sum"], dtype=torch.float64)
            if known["files"] == self._files(known["shards"]) and sum_D.shape == self.sum_D.shape:
                self.shards, self.squares, self.sum_D = int(known["shards"]), float(known["squares"]), sum_D
                self.last_document = known["last_document"]

    def add(self, squares: float, sum_D: Tensor, last_document: int | None) -> None:
        """The next shard is whole: its Σ‖x‖², its Σx (D,), and the document of its last row, if it has any."""
        self.shards, self.squares, self.sum_D = self.shards + 1, self.squares + squares, self.sum_D + sum_D
        self.last_document = self.last_document if last_document is None else last_document
        if time.monotonic() - self._written >= SECONDS:
            self._write()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Of a long check that ends early, what it has come to is kept; at its end the note goes."""
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            if time.monotonic() - begun >= SECONDS:
                self._write()
            raise
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        known = {
            "shards": self.shards,
            "files": self._files(self.shards),
            "squares": self.squares,
            "sum": self.sum_D.tolist(),
            "last_document": self.last_document,
        }
        with contextlib.suppress(OSError):  # a home that cannot be written to
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps(known), durable=False)
        self._written = time.monotonic()

    def _files(self, shards: int) -> str:
        return hashlib.sha256("\n".join(self._stamps[:shards]).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saelight"
