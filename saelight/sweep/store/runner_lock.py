"""One runner for a sweep's folder: a lock that ends with the process that holds it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from saelight.errors import UserError
from saelight.sweep.store.sweep_folder import SweepFolder


@contextlib.contextmanager
def only_runner(folder: SweepFolder) -> Iterator[None]:
    """Hold the sweep's folder, until this process ends, however it does. Raises `UserError` when another one holds it."""
    new = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            yield
    finally:
        # A command that was refused leaves no trace.
        if new and [path.name for path in folder.path.iterdir()] == ["lock"]:
            (folder.path / "lock").unlink()
            for path in new:
                path.rmdir()


@contextlib.contextmanager
def _locked(folder: SweepFolder) -> Iterator[None]:
    with (folder.path / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise UserError(
                f"another runner ({lock.read().strip()}) is at work in {folder.path}: wait for it, stop it, or "
                "give --out another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
