"""Ranges of remote files kept on a local disk, the least recently used going first.

A range is one file, named by the checksum of the whole remote file, where it begins and how long it is: runs and processes
share it, and data that were moved are found again. Its bytes come after their own checksum; what a disk has damaged is read
from afar again.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path

from saelight.errors import UserError
from saelight.files import hold

_SEAL = hashlib.sha256().digest_size
_SUFFIX = ".range"
_SHRINK_TO = 0.9
"""Share of the limit that is left when it was exceeded: so the folder is not looked through for every range."""
_LOOK_EVERY = 0.05
"""Share of the limit that a process writes before it looks what others have written."""


class RangeCache:
    """A folder of ranges.

    Args:
        folder: Made where it is not there. Processes may share it.
        limit: Bytes that all ranges in it take at most; a twentieth more for each process that writes.

    Raises:
        UserError: It cannot be written to.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder, self.limit = Path(folder), limit
        self._room = 0
        """Bytes to write before the folder is looked through again: others may write there too."""
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(f"cannot keep data in {folder}: {error.strerror}; give another data.cache_dir") from None

    async def get(self, content: str, start: int, length: int) -> bytes | None:
        """The bytes, if they are here, whole and undamaged."""
        return await asyncio.to_thread(self._get, self._path(content, start, length))

    async def put(self, content: str, start: int, data: bytes) -> None:
        """Keep bytes. A full disk is no error: they are then not kept."""
        await asyncio.to_thread(self._put, self._path(content, start, len(data)), data)

    def _path(self, content: str, start: int, length: int) -> Path:
        return self.folder / content[:2] / f"{content}-{start}-{length}{_SUFFIX}"

    def _get(self, path: Path) -> bytes | None:
        try:
            raw = path.read_bytes()
            os.utime(path)  # last used now
        except OSError:
            return None
        seal, data = raw[:_SEAL], raw[_SEAL:]
        if hashlib.sha256(data).digest() != seal:
            path.unlink(missing_ok=True)
            return None
        return data

    def _put(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            return
        with self._lock:
            self._room -= len(data) + _SEAL
            if self._room < 0:
                self._look()

    def _look(self) -> None:
        """Measure the folder, and remove what was used longest ago if it is too large. One process does so at a time."""
        held = hold(self.folder / ".lock")
        if held is None:
            return
        with held:
            files = []
            for path in self.folder.glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    files.append((found.st_mtime, found.st_size, path))
            size = sum(length for _, length, _ in files)
            if size > self.limit:
                for _, length, path in sorted(files):
                    if size <= _SHRINK_TO * self.limit:
                        break
                    path.unlink(missing_ok=True)
                    size -= length
            self._room = min(self.limit - size, round(_LOOK_EVERY * self.limit))
