"""Files that are there whole or not at all, names that can be a folder's, the header of safetensors files, and tables of
text."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from saelight.errors import UserError

_LONGEST_NAME = 200
"""Bytes. File systems take 255, and what is added to a name (`-2`, `.safetensors.partial`) has to fit too."""
_NO_FILE = re.compile(r'[<>:"|?*]')
"""What Windows takes in no file's name."""
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices."""


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to, which takes `path`'s place when the block ends well.

    A reader sees the old one or the new one, never half of it; on an exception the old one stays. `durable`: also after the
    machine has lost its power; the file is on the disk before the old one goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            # A folder does not replace another one.
            _remove(path)
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)
    except BaseException:
        _remove(partial)
        raise


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write `text` in place of what is there. `durable`: wait until it is on the disk; what is soon written again need
    not."""
    with replacing(path, durable) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of its files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(path: Path) -> IO[str] | None:
    """Lock a file, made where it is not there, against other processes, until what is returned is closed or this one ends;
    None when another one holds it."""
    file = path.open("a")
    if lock(file):
        return file
    file.close()
    return None


def lock(file: IO[Any] | int) -> bool:
    """Lock an open file against other processes; False when another one holds it. A file system that knows no locks, as some
    clusters' do not, lets everyone pass."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def is_locked(path: Path, unknown: bool) -> bool:
    """Whether a process of this machine holds a file's lock now; nobody holds a file that is not there.

    Args:
        unknown: What to say where the file system knows no locks, or the file cannot be asked.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return unknown
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_name(name: str, what: str) -> None:
    """Raise `UserError` unless `name` can be the name of one folder inside another, on any disk, and nothing but that.

    Args:
        what: What has the name, as the message is to begin: `the sweep's name`.
    """
    if not isinstance(name, str):
        raise UserError(f"{what} {name!r} is no text: quote it")
    shown = repr(name if len(name) <= 40 else f"{name[:30]}…")
    if (size := len(name.encode(errors="surrogatepass"))) > _LONGEST_NAME:
        raise UserError(f"{what} {shown} has {size} bytes: give one of at most {_LONGEST_NAME}")
    if not name.isprintable() or name != name.strip() or set(name) & set("/\\") or name[:1] in ("", "."):
        raise UserError(
            f"{what} {shown} cannot be a folder's: use letters, digits, '_', '-', spaces inside and '.' (not first); "
            "it is a name, no path"
        )
    if (found := _NO_FILE.search(name)) or _DEVICE.fullmatch(name) or name.endswith("."):
        reason = f"not with {found[0]!r}" if found else "not ending in a dot, and not as it calls its devices"
        raise UserError(f"{what} {shown} cannot be a folder's on Windows, {reason}: choose another")
    if name.lower().endswith((".partial", ".lock")):
        raise UserError(f"{what} {shown} is as what is half written or locked is called: give it another ending")


def check_path(path: str | os.PathLike, what: str) -> None:
    """Raise `UserError` for what no system takes as a path.

    Args:
        what: What has it, as the message is to begin.
    """
    if "\0" in os.fspath(path):
        raise UserError(f"{what} {os.fspath(path)!r} holds a NUL, which is in no path: name another")


def safetensors_header(tensors: dict[str, tuple[str, Sequence[int], int]]) -> bytes:
    """The beginning of a safetensors file whose tensors follow in this order.

    Args:
        tensors: By name: the dtype as the format writes it (`BF16`, `F32`, …), the shape, and the bytes.
    """
    header, start = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header, separators=(",", ":")).encode()
    # The format wants the data to start at a multiple of 8 bytes; spaces fill the header up.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def table(lines: Sequence[Sequence[Any]], left: Collection[int] = (0,)) -> str:
    """Lines of cells in aligned columns, two spaces apart: those of `left` (their numbers) flush left, the others right."""
    texts = [[str(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in texts
    )
