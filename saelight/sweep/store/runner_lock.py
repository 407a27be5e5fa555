"""One runner for a sweep's folder: a lock that ends with the process that holds it."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from saelight.errors import UserError
from saelight.files import is_locked, lock
from saelight.sweep.store.sweep_folder import SweepFolder

_PATIENCE = 1.0
"""Seconds: `status` holds the lock for a moment too, to see whether somebody does."""


@contextlib.contextmanager
def only_runner(folder: SweepFolder) -> Iterator[None]:
    """Hold the sweep's folder, until this process ends, however it does. Raises `UserError` when another one holds it."""
    new = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            yield
    finally:
        if new:
            _leave_no_trace(folder, new)


def _leave_no_trace(folder: SweepFolder, new: list[Path]) -> None:
    """Take back the folders that a command made, if it was refused and put nothing into them."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.path.iterdir()] == ["lock"]:
            (folder.path / "lock").unlink()
    for path in new:
        with contextlib.suppress(OSError):
            path.rmdir()


def is_held(folder: SweepFolder) -> bool:
    """Whether a runner of this machine holds the folder now."""
    return is_locked(folder.path / "lock", unknown=False)


@contextlib.contextmanager
def _locked(folder: SweepFolder) -> Iterator[None]:
    with (folder.path / "lock").open("a+") as file:
        end = time.monotonic() + _PATIENCE
        while not lock(file):
            if time.monotonic() > end:
                file.seek(0)
                raise UserError(
                    f"another runner ({file.read().strip()}) is at work in {folder.path}: wait for it, stop it, or "
                    "give --out another folder"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
