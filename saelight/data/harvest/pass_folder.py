"""The folder in memory through which runs of one machine share a pass: made by whoever starts them, gone with it."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from saelight.files import hold, is_locked

FOLDER = "SAELIGHT_PASS"
"""In the environment of runs: the folder that they share."""
_PREFIX = "saelight-pass-"
_MEMORY = Path("/dev/shm")
_ROOM = 1 << 30
"""Bytes that must be free in memory's own file system (containers often have 64 MB there); else the temporary folder, which
the system keeps in memory as far as there is room."""
_OWNER = "owner.lock"
_NEW = 60.0
"""Seconds in which a folder may still be without its owner's lock."""


@contextlib.contextmanager
def pass_folder() -> Iterator[Path]:
    """A folder of this user alone while this lasts. What others left that were killed is removed first.

    Raises `OSError` where none can be made.
    """
    base = _base()
    for other in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _NEW:
                clear(other)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    owner = hold(folder / _OWNER)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if owner is not None:
            owner.close()


def clear(folder: Path) -> None:
    """Remove a folder whose owner has died, and of whose readers none lives."""
    if (folder / _OWNER).is_file() and not any(is_locked(path, unknown=True) for path in folder.glob("*.lock")):
        shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _ROOM and os.access(_MEMORY, os.W_OK):
            return _MEMORY
    return Path(tempfile.gettempdir())
