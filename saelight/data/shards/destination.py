"""Where a writer of shards puts its files: whole folders or none."""

import contextlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from saelight.data.remote.remote_store import store_of
from saelight.data.remote.remote_url import Url
from saelight.data.shards.disk import check_free, writing
from saelight.data.shards.metadata import METADATA
from saelight.errors import UserError
from saelight.files import sync

_OURS = re.compile(rf"{re.escape(METADATA)}|activations-\d+\.safetensors")
_PROBE = "activations-0.safetensors"


class Destination(ABC):
    """A folder that is being written."""

    def name(self, number: int) -> str:
        """What shard `number` is called."""
        return f"activations-{number:05d}.safetensors"

    @abstractmethod
    def begin(self) -> None:
        """Make room. Raises `UserError` when the folder exists, or may not be written."""

    @abstractmethod
    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        """Write a file, whole."""

    @abstractmethod
    def finish(self, metadata: bytes) -> None:
        """Write `metadata.json`: from now on there are shards."""

    @abstractmethod
    def end(self) -> None:
        """Remove what was not finished."""


class DiskFolder(Destination):
    """`<out>.partial`, which is renamed to `out` at the end."""

    def __init__(self, out: Path) -> None:
        self.out, self.partial = out, Path(f"{out}.partial")

    def begin(self) -> None:
        check_free(self.out)
        with writing(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.partial)
            try:
                _check_ours(self.partial, stale := [file.name for file in self.partial.iterdir()])
                for name in stale:
                    (self.partial / name).unlink()
            except BaseException:
                os.close(self._lock)
                raise

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        write_file(self.partial / name, pieces)

    def finish(self, metadata: bytes) -> None:
        self.write(METADATA, [memoryview(metadata)])
        with writing(self.out):
            sync(self.partial)
            os.rename(self.partial, self.out)
            sync(self.out.parent)

    def end(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)


class RemoteFolder(Destination):
    """A folder at a URL. Nothing there can be renamed: its files are no shards until `metadata.json` is there."""

    def __init__(self, out: Url) -> None:
        self.out, self._store = out, store_of(out)
        self._written: list[str] = []

    def begin(self) -> None:
        check_free(self.out)
        _check_ours(self.out, stale := self._store.names(self.out))
        # Whether one may write here is known before hours of work, not after.
        self.write(_PROBE, [memoryview(b"")])
        for name in {*stale, _PROBE}:
            self._store.remove(self.out / name)
        self._written = []

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        self._written.append(name)
        self._store.write(self.out / name, b"".join(pieces))

    def finish(self, metadata: bytes) -> None:
        self.write(METADATA, [memoryview(metadata)])
        self._written = []

    def end(self) -> None:
        with contextlib.suppress(UserError):  # what cannot be removed now is overwritten by the next writer
            for name in self._written:
                self._store.remove(self.out / name)


def write_file(file: Path, pieces: Sequence[memoryview]) -> None:
    """Write a file that is on the disk when this returns. Raises `UserError` with what the disk refuses."""
    with writing(file), file.open("wb") as opened:
        for piece in pieces:
            opened.write(piece)
        opened.flush()
        os.fsync(opened.fileno())


def _check_ours(folder: Path | Url, names: Sequence[str]) -> None:
    """Raise `UserError` for what no killed writer left: it is someone's own, and stays."""
    for name in names:
        if not _OURS.fullmatch(name):
            raise UserError(f"{folder} holds {name!r}, which no writer of shards left there; move it away")


def _lock(folder: Path) -> int:
    """Hold `folder` against a second writer for as long as the returned descriptor is open; the system frees it when
    the process dies, so what was left by a killed one can be taken over."""
    # No link: what it leads to is someone's own.
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except BlockingIOError:
        os.close(fd)
        raise UserError(f"{folder} is being written by another process; wait, or choose another folder") from None
    return fd
