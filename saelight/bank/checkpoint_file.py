"""Checkpoint files: what torch.save writes, and after it a SHA-256 of that, so that one that was damaged anywhere is refused
before anything of it is used.

    <zip file of torch.save> "\\nsaelight sha256 " <64 hexadecimal digits> "\\n"

torch.load reads such a file as any other. The digest is taken while the file is written, so nothing is held or read twice.
"""

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.plugins.io import TorchCheckpointIO

from saelight.errors import UserError, one_line
from saelight.files import replacing

_MARK, _END, _DIGITS = b"\nsaelight sha256 ", b"\n", 64
_LENGTH = len(_MARK) + _DIGITS + len(_END)
_ZIP = b"PK\x03\x04"
_CHUNK = 2**20  # bytes
INSTEAD = "go on from another checkpoint, or start a new run from exported SAEs by init_from: <run>/saes/<name>"


class ChecksummedIO(TorchCheckpointIO):
    """Lightning's way to checkpoint files, with a checksum in each."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """Write the file whole, in place of the one that is there, which goes when the new one is on the disk."""
        if storage_options is not None:
            raise UserError("storage_options are for other CheckpointIO plugins: leave them out")
        with contextlib.ExitStack() as stack:
            if _is_url(path):
                fs = get_filesystem(str(path))
                stack.enter_context(fs.transaction)
                file = stack.enter_context(fs.open(str(path), "wb"))
            else:
                file = stack.enter_context(stack.enter_context(replacing(Path(path), durable=True)).open("wb"))
            writer = _Hashing(file)
            try:
                torch.save(checkpoint, cast(IO[bytes], writer))
            except RuntimeError:
                # torch has an error of its own for one that its file raises, a full disk's.
                raise writer.error or RuntimeError("torch could not write the checkpoint") from None
            file.write(_MARK + writer.hash.hexdigest().encode() + _END)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """The checkpoint, on the CPU. Raises `UserError` for a file that is not whole, or that would run code."""
        with opened(path) as file:
            return load(file, path, map_location, weights_only is not False)


@contextlib.contextmanager
def opened(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[IO[bytes]]:
    """A checkpoint's file, at its beginning, once its checksum has been found to hold.

    Raises:
        UserError: for what cannot be opened, is no checkpoint, or not whole.
    """
    if not isinstance(source, str | os.PathLike):
        _check(source, "this file")
        yield source
        return
    try:
        file = _open(source)
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{source} cannot be read: {one_line(error)}") from None
    with file:
        _check(file, source)
        yield file


def load(file: IO[bytes], name: Any, map_location: Any, weights_only: bool = True) -> dict[str, Any]:
    """The content of an opened checkpoint. Raises `UserError`."""
    try:
        content = torch.load(file, map_location=map_location, weights_only=weights_only)
    except pickle.UnpicklingError as error:
        raise holds_code(name, error) from None
    except Exception as error:
        # The file is as it was written, so it was not a bank's trainer that wrote it.
        raise UserError(f"{name} is no checkpoint of a bank ({one_line(error)}): {INSTEAD}") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} is no checkpoint of a bank: {INSTEAD}")
    return content


def _open(path: str | os.PathLike[str]) -> IO[bytes]:
    if _is_url(path):
        return cast(IO[bytes], get_filesystem(str(path)).open(str(path), "rb"))
    if Path(path).is_file():
        return Path(path).open("rb")
    # A pipe would be waited for, for ever.
    raise UserError(f"no checkpoint at {path}: give a .ckpt file that a run has written")


def _is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in str(path)


def holds_code(name: Any, error: pickle.UnpicklingError) -> UserError:
    """The refusal of a checkpoint that torch will not load as plain data."""
    unknown = re.search(r"GLOBAL (\S+)", str(error))
    what = f"{unknown[1]}, which only code of its own can read" if unknown else "more than data"
    return UserError(
        f"{name} holds {what}: the state of callbacks and data modules may be tensors, numbers, text, lists and dicts"
    )


class _Hashing:
    """What torch.save writes to: a file, and the digest of what has come."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self.hash.update(data)
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _check(file: IO[bytes], name: Any) -> None:
    """Raise `UserError` unless the file ends with the digest of all that comes before; leaves it at its beginning."""
    size = file.seek(0, os.SEEK_END) - _LENGTH
    file.seek(0)
    if file.read(len(_ZIP)) != _ZIP:
        raise UserError(f"{name} is no checkpoint: give a .ckpt file that a run has written")
    file.seek(max(size, 0))
    end = file.read()
    if size < 0 or not (end.startswith(_MARK) and end.endswith(_END)):
        raise UserError(f"{name} was cut short, or not written by a bank's trainer: no checksum is at its end; {INSTEAD}")
    file.seek(0)
    digest, left = hashlib.sha256(), size
    while left and (part := file.read(min(left, _CHUNK))):
        digest.update(part)
        left -= len(part)
    if end[len(_MARK) : -len(_END)] != digest.hexdigest().encode():
        raise UserError(f"{name} is damaged: it is not as it was written, by the checksum at its end; {INSTEAD}")
    file.seek(0)
