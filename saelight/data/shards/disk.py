"""What the file system refuses, in one line, and files that are opened only where they are files."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from saelight.data.remote.remote_store import store_of
from saelight.data.remote.remote_url import Url
from saelight.errors import UserError

_FULL = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota reached", errno.EFBIG: "file size limit reached"}
_DENIED = (errno.EACCES, errno.EPERM)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}
# Opening for reading must not wait for the other end of a pipe that took the file's place meanwhile.
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def is_there(path: Path) -> bool:
    """Whether there is anything to open at `path`. True where that may not be known: whoever opens it is told why not."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_free(path: Path | Url) -> bool:
    """Whether there is nothing at `path`, no broken link either; at a URL, no shards. Raises `UserError` when the disk does
    not say."""
    if isinstance(path, Url):
        return not store_of(path).has(path / "metadata.json")
    with writing(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return True
    return False


def check_free(path: Path | Url) -> None:
    """Raises `UserError` unless `is_free`."""
    if not is_free(path):
        raise UserError(f"{path} exists; choose another folder, or remove it")


def check_folder(path: Path) -> None:
    """Raises `UserError` when `path` is no folder that can be looked into."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        raise UserError(f"no shards at {path}: there is no such folder; make them with `saelight shards harvest`") from None
    except (OSError, ValueError) as e:
        raise cannot_read(path, e) from None
    if kind != stat.S_IFDIR:
        raise UserError(f"no shards at {path}: it is {_KINDS.get(kind, 'no folder')}; point to the folder of the shards")


def open_file(path: Path) -> int:
    """A descriptor that reads the regular file `path`. Never waits, whatever is there in a file's place.

    Raises `UserError` when there is no such file, it may not be read, or it is something else.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFREG:
            return os.open(path, _FLAGS)
    except (OSError, ValueError) as e:
        raise cannot_read(path, e) from None
    raise UserError(
        f"{path} is {_KINDS.get(kind, 'something')} where a file belongs; copy the folder whole, or harvest again"
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """`path`, opened as `open_file` does. What the disk refuses while the block reads it is one line too."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            yield file
    except OSError as e:
        raise cannot_read(path, e) from None


def cannot_read(path: Path, error: OSError | ValueError) -> UserError:
    """The line for a system's refusal to read `path`. (A path with a NUL in it is a ValueError.)"""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return UserError(f"{path.name} is missing from {path.parent}; copy the folder whole, or harvest again")
    if number in _DENIED:
        return UserError(f"cannot read {path}: permission denied; ask its owner for the right to read it (chmod)")
    if number == errno.ELOOP:
        return UserError(f"cannot read {path}: its symbolic link leads back to itself; copy the folder whole")
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(f"cannot read {path}: {reason}; check the path and the disk")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses while the block writes `path`, in one line."""
    try:
        yield
    except OSError as e:
        reason = _FULL.get(e.errno or 0, e.strerror)
        raise UserError(
            f"{reason}: cannot write {path}; nothing was kept, free some space or choose another folder"
            if e.errno in _FULL
            else f"cannot write {path}: {reason}; choose another folder"
        ) from e
