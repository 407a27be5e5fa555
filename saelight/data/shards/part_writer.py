"""Writing one part of a shard folder, to go on at the last whole shard after a kill.

Shapes: N rows, D d_in.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saelight.data.remote.remote_url import Url
from saelight.data.shards.destination import Destination
from saelight.data.shards.disk import check_free
from saelight.data.shards.folder_part import Note, Part, SharedFolder, empty_note, unlike
from saelight.data.shards.reader import DOCUMENT_IDS
from saelight.data.shards.writer import ShardWriter
from saelight.errors import UserError


class PartWriter(ShardWriter):
    """A `ShardWriter` whose rows are a part of the folder `out`: `merge` makes the folder when all parts are done.

    Whatever ends it, whole shards stay; made again, it goes on behind them. It is then to be given the rows from
    `first_row` on again, and leaves out those that it has.

    Args:
        part: Which part.
        settings: As `ShardWriter`'s, the same for all parts of a folder.

    Raises:
        UserError: The folder is there, another process writes this part, or other parts have other settings.
    """

    def __init__(self, out: str | Path | Url, part: Part, **settings: Any) -> None:
        self.part = part
        super().__init__(out, **settings)
        self.first_row = 0
        """Which of this part's rows the first `append` brings."""
        self._settings: dict[str, Any] = self._meta | {"source": dict(self.source)}
        self._documents: list[int] = []
        self._skip = 0

    def __enter__(self) -> "PartWriter":
        super().__enter__()
        try:
            self._restore()
        except BaseException:
            self._to.end()
            raise
        return self

    def append(self, x_ND: Tensor | np.ndarray, **columns: Tensor | np.ndarray) -> None:
        skip = min(self._skip, len(x_ND))
        self._skip -= skip
        super().append(x_ND[skip:], **{name: column[skip:] for name, column in columns.items()})

    def _destination(self) -> Destination:
        return _PartFolder(SharedFolder(self.out), self.part)

    def _restore(self) -> None:
        folder = SharedFolder(self.out)
        for other in folder.notes():
            if other["of"] != self.part.of:
                raise UserError(
                    f"{folder.place} holds part {other['part']}/{other['of']}, this is part {self.part}; finish those, "
                    "remove them, or choose another folder"
                )
            if other["shards"] and (why := unlike(self._settings, other["settings"])):
                raise UserError(
                    f"part {other['part']}/{other['of']} in {folder.place} has {why}; give all parts the same settings, or "
                    "choose another folder"
                )
        if note := folder.note(self.part):
            self._shards = [dict(entry) for entry in note["shards"]]
            self._squares, self._sum_D = note["squares"], torch.tensor(note["sum"], dtype=torch.float64)
            self._documents = note["documents"]
            self._last_document = note["documents"][1] if note["documents"] else None
            self.n_rows = sum(entry["rows"] for entry in note["shards"])
        self._skip = self.n_rows - self.first_row

    def _flush(self) -> None:
        # Of rows that still wait for a shard of their own nothing is noted.
        if DOCUMENT_IDS in self._columns:
            ids_N = self._columns[DOCUMENT_IDS][: self._waiting]
            self._documents = [self._documents[0] if self._documents else int(ids_N[0]), int(ids_N[-1])]
        super()._flush()
        self._write_note(done=False)

    def _finish(self) -> None:
        if self._waiting:
            self._flush()
        self._write_note(done=True)

    def _write_note(self, done: bool) -> None:
        known: dict[str, Any] = self._settings["source"]
        note: Note = {
            **empty_note(self.part),
            "done": done,
            "settings": self._settings,
            "shards": self._shards,  # type: ignore[typeddict-item]
            "squares": self._squares,
            "sum": self._sum_D.tolist(),
            "documents": self._documents,
            "position": self.position,
            "counts": {key: value for key, value in self.source.items() if key not in known} if done else {},
            "dropped": [dict(report) for report in self.dropped],  # type: ignore[misc]
        }
        SharedFolder(self.out).write_note(self.part, note)


class _PartFolder(Destination):
    """A folder that other parts write too; whole shards stay, whatever happens."""

    def __init__(self, folder: SharedFolder, part: Part) -> None:
        self._folder, self._part = folder, part
        self._lock: IO[str] | None = None

    def name(self, number: int) -> str:
        return f"activations-{self._part.number:05d}-{number:05d}.safetensors"

    def begin(self) -> None:
        check_free(self._folder.out)
        self._folder.make()
        self._lock = self._folder.hold(self._part.stem)
        if self._lock is None:
            raise UserError(f"part {self._part} of {self._folder.out} is being written by another process; wait for it")

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        self._folder.write(name, pieces)

    def finish(self, metadata: bytes) -> None:
        raise AssertionError("parts have no metadata")

    def end(self) -> None:
        if self._lock is not None:
            self._lock.close()
