"""This machine: a child process per device, which takes the next group as it frees."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelight.data.harvest.pass_folder import FOLDER, pass_folder
from saelight.sweep.execute import devices as dev
from saelight.sweep.execute.child import PARENT
from saelight.sweep.execute.launch.launcher import Launcher, Outcome
from saelight.sweep.execute.launch.logs import last_words, log_of

if TYPE_CHECKING:
    from saelight.sweep.execute.devices import Device
    from saelight.sweep.store.sweep_folder import Group, SweepFolder

_PATIENCE = 600.0
"""Seconds for a child to end its batch and write its checkpoint."""
_HASTE = 10.0
"""Seconds for a child that is to stop at once."""
SHARE = 0.8
"""Of a device's memory, for runs; the rest is the system's, and the prediction's error."""


class Worker(NamedTuple):
    """A place for one child at a time."""

    device: str
    """Name of its device, or of all of them."""
    threads: int
    environment: dict[str, str]
    """Beside this process's own."""
    arguments: list[str]
    """Of `fit`."""


class _Running(NamedTuple):
    child: subprocess.Popen[bytes]
    worker: Worker
    log: Path
    said: int
    """Bytes of the log before this attempt."""


class LocalLauncher(Launcher):
    """Children on the devices of this machine, one each; a device may stand several times."""

    name = "local"
    summary = "a run per device"

    def __init__(self, folder: "SweepFolder", devices: "list[Device]", parallel: int | None) -> None:
        super().__init__(folder, devices, parallel)
        self._workers = self._make_workers()
        self._idle = list(self._workers)
        self._running: dict[str, _Running] = {}
        self._hurried = False
        self._pass = contextlib.ExitStack()
        """The folder through which what runs at once shares a model's pass, while anything runs."""
        self._pass_folder: Path | None = None

    def _make_workers(self) -> list[Worker]:
        return [
            Worker(device.name, threads, dev.environment(device, threads), dev.arguments(device))
            for device, threads in zip(self.devices, dev.threads_of(self.devices), strict=True)
        ][: self.parallel]

    @property
    def workers(self) -> list[str]:
        return [worker.device for worker in self._workers]

    @property
    def processes(self) -> int:
        """Processes that train at once."""
        return len(self._workers)

    @property
    def memory_limit(self) -> int:
        """Of the smallest device; processes on the CPU share its memory."""
        shares = [device.memory // (self.processes if device.name == "cpu" else 1) for device in self.devices]
        return int(SHARE * min(shares))

    def free(self) -> int:
        return len(self._idle)

    def submit(self, groups: "list[Group]") -> list[dict[str, Any]]:
        return [self._start(group) for group in groups]

    def _start(self, group: "Group") -> dict[str, Any]:
        worker = self._idle.pop(0)
        log = log_of(self.folder, group.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        # A child is no job of Slurm's, even where the runner is one.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        environment[PARENT] = str(os.getpid())
        environment |= self._shared()
        child = [sys.executable, "-m", "saelight.sweep.execute.child", str(self.folder.path), group.id]
        said = log.stat().st_size if log.is_file() else 0
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the runner alone, which tells the children once.
            process = subprocess.Popen(
                [*child, *worker.arguments],
                env=environment | worker.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running[group.id] = _Running(process, worker, log, said)
        return {"device": worker.device, "threads": worker.threads, "pid": process.pid}

    def _shared(self) -> dict[str, str]:
        """What lets groups that train at once share a model's pass."""
        if self._pass_folder is None and len(self._workers) > 1:
            with contextlib.suppress(OSError):  # each makes its own pass
                self._pass_folder = self._pass.enter_context(pass_folder())
        return {} if self._pass_folder is None else {FOLDER: str(self._pass_folder)}

    def poll(self) -> list[Outcome]:
        ended = []
        for group, (child, worker, log, said) in list(self._running.items()):
            code = child.poll()
            if code is None:
                continue
            del self._running[group]
            self._idle.append(worker)
            done = code == 0 and self.folder.finished(group)
            ended.append(Outcome(group, done, None if done else _reason(code, log, said), again=code != 0))
        if not self._running:
            self._pass.close()
            self._pass_folder = None
        return ended

    def cancel(self) -> None:
        for running in self._running.values():
            running.child.send_signal(signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while self._left():
            if self._hurried:
                # The second word that training understands: a second SIGTERM is Slurm's, and counts for nothing.
                self._tell_all(signal.SIGINT)
                end, self._hurried = time.monotonic() + _HASTE, False
            if time.monotonic() > end:
                self._tell_all(signal.SIGKILL)
            time.sleep(0.05)

    def hurry(self) -> None:
        self._hurried = True

    def _left(self) -> list[subprocess.Popen[bytes]]:
        return [running.child for running in self._running.values() if running.child.poll() is None]

    def _tell_all(self, number: signal.Signals) -> None:
        for child in self._left():
            # Its own group: all processes of a run by DDP.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)


def _reason(code: int, log: Path, said: int) -> str:
    """Why a child failed: its own word of the error, or how it ended."""
    if code == 0:
        return "it stopped before its planned length, by trainer.max_time or a callback of its own; --resume goes on"
    return last_words(log, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}", said)
