"""What every launcher starts for a group: `python -m saelight.sweep.execute.child FOLDER GROUP [arguments of fit]`.

It holds the group's lock for as long as it trains, decides whether there is a checkpoint to go on from, and becomes
`saelight fit`.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from saelight.files import lock
from saelight.run import run_folder
from saelight.sweep.store.sweep_folder import SweepFolder

PARENT = "SAELIGHT_PARENT"
"""In the environment: the process that this one is to end with."""
WAIT = 600.0
"""Seconds to wait for the last child of this group, which may still be writing a large checkpoint to a slow disk."""


def main(args: list[str]) -> int:
    """Become the training of a group; returns only when it must not begin."""
    path, group, *rest = args
    folder = SweepFolder(path)
    if "SLURM_JOB_ID" in os.environ:
        # Slurm's word that time is up may come before there is anything to save: it waits until training begins.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    else:
        end_with_parent()
    (folder.path / "runs").mkdir(parents=True, exist_ok=True)
    if not _hold_lock(folder.lock(group)):
        print(f"saelight: error: another process trains {group}; it holds {folder.lock(group)}", file=sys.stderr)
        return 1
    if folder.finished(group):
        return 0
    folder.reset(group)
    command = [sys.executable, "-m", "saelight", *fit_arguments(folder, group), *rest]
    os.execv(command[0], command)


def fit_arguments(folder: SweepFolder, group: str) -> list[str]:
    """`fit` and its arguments for a group: from its checkpoint, where there is one."""
    run = folder.run(group)
    checkpoint = run_folder.checkpoint(run)
    resume = [f"--ckpt_path={checkpoint}"] if checkpoint.is_file() else []
    return ["fit", f"--config={folder.yaml(group)}", f"--trainer.folder={run}", *resume]


def end_with_parent() -> None:
    """Be told to stop when the parent dies, however it dies; Linux only. One that is dead already ends this process."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            PR_SET_PDEATHSIG = 1
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have died before it was asked about: then someone else has taken this process in.
    if os.environ.pop(PARENT, None) not in (None, str(os.getppid())):
        sys.exit("saelight: error: the sweep's runner died as it started this: --resume goes on")


def _hold_lock(path: Path) -> bool:
    """Hold the lock until this process ends; it survives exec."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    os.set_inheritable(descriptor, True)
    end = time.monotonic() + WAIT
    # Where a file system knows no locks: the runner starts a group once.
    while not lock(descriptor):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
