"""Files that stay open while rows are read from them: no more than a few hundred, and each still of the size it had."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from saelight.data.shards.disk import cannot_read, open_file, reading
from saelight.errors import UserError

_OPEN = 256


class Files(Protocol):
    """Reads bytes of files at their offsets, from any thread: on a disk `OpenFiles`, at URLs `RemoteFiles`."""

    def read(self, path: Any, size: int, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes of `path`, of `size` bytes, from `offset` on. Raises `UserError` when it cannot."""

    def will_need(self, path: Any, size: int, offset: int, length: int) -> None:
        """Hint that these bytes are read next, at once."""

    def stamp(self, path: Any) -> str:
        """What tells whether a file is still the same."""


class OpenFiles:
    """Reads bytes of files at their offsets, from any thread."""

    def __init__(self) -> None:
        self._file = lru_cache(_OPEN)(_File)

    def read(self, path: Path, size: int, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes of `path` from `offset` on. Raises `UserError` when the file is no longer `size` bytes
        long, or cannot be read."""
        file, done = self._file(path, size), 0
        while done < len(out):
            try:
                got = os.preadv(file.fd, [out[done:]], offset + done)
            except OSError as e:
                raise cannot_read(path, e) from None
            if not got:
                raise UserError(f"{path} became shorter while it was read; copy it again")
            done += got

    def will_need(self, path: Path, size: int, offset: int, length: int) -> None:
        """Ask the system to read ahead, where it knows how (macOS does not)."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file(path, size).fd, offset, length, os.POSIX_FADV_WILLNEED)

    def stamp(self, path: Path) -> str:
        """Size, time of the last change and inode."""
        with reading(path) as file:
            found = os.fstat(file.fileno())
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        self._file = lru_cache(_OPEN)(_File)


class _File:
    """A descriptor that closes with its last reference: a thread that reads outlives the cache's eviction."""

    def __init__(self, path: Path, size: int) -> None:
        self.fd = -1
        self.fd = open_file(path)
        if (now := os.fstat(self.fd).st_size) != size:
            raise UserError(f"{path} had {size} bytes when it was opened and now has {now}; start again when it is whole")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone when the interpreter ends
        if self.fd >= 0:
            close(self.fd)
