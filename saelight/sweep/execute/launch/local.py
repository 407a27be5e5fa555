"""This machine: a child process per device, which takes the next group as it frees."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from saelight.sweep.execute import devices as dev
from saelight.sweep.execute.devices import Device
from saelight.sweep.execute.launch import Outcome
from saelight.sweep.execute.launch.logs import last_words, log_of
from saelight.sweep.store.sweep_folder import Group, SweepFolder

_PATIENCE = 600.0
"""Seconds for a child to end its batch and write its checkpoint."""


class _Worker(NamedTuple):
    device: Device
    threads: int


class LocalLauncher:
    """Children on the devices of this machine.

    Args:
        folder: Of the sweep.
        devices: One worker each; a device may stand several times.
        most: Runs at once, when fewer than devices.
        ddp: Every run gets all devices at once, by Lightning's DDP.
    """

    def __init__(self, folder: SweepFolder, devices: list[Device], most: int | None = None, ddp: bool = False) -> None:
        self.folder, self.ddp, self.devices = folder, ddp, devices
        workers = [_Worker(*pair) for pair in zip(devices, dev.threads_of(devices), strict=True)]
        self._idle = workers[:1] if ddp else workers[: most or len(workers)]
        self._running: dict[str, tuple[subprocess.Popen, _Worker, Path]] = {}

    def free(self) -> int:
        return len(self._idle)

    def submit(self, groups: list[Group]) -> list[dict]:
        return [self._start(group) for group in groups]

    def _start(self, group: Group) -> dict:
        worker = self._idle.pop(0)
        log = log_of(self.folder, group.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        # A child is no job of Slurm's, even where the runner is one.
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        env |= dev.environment(worker.device, worker.threads)
        command = [sys.executable, "-m", "saelight.sweep.execute.child", str(self.folder.path), group.id]
        if self.ddp:
            env.pop("CUDA_VISIBLE_DEVICES", None)
            command += [*dev.arguments(worker.device)[:1], *self._all_devices(), "--trainer.strategy=ddp"]
        else:
            command += dev.arguments(worker.device)
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the runner alone, which tells the children once.
            child = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self._running[group.id] = (child, worker, log)
        names = ",".join(d.name for d in self.devices) if self.ddp else worker.device.name
        return {"device": names, "threads": worker.threads, "pid": child.pid}

    def _all_devices(self) -> list[str]:
        if self.devices[0].name == "cpu":
            return [f"--trainer.devices={len(self.devices)}"]
        numbers = ",".join(d.name.partition(":")[2] for d in self.devices)
        return [f"--trainer.devices=[{numbers}]"]

    def poll(self) -> list[Outcome]:
        ended = []
        for group, (child, worker, log) in list(self._running.items()):
            code = child.poll()
            if code is None:
                continue
            del self._running[group]
            self._idle.append(worker)
            done = code == 0 and self.folder.finished(group)
            ended.append(Outcome(group, done, None if done else _reason(code, log)))
        return ended

    def cancel(self) -> None:
        for child, _, _ in self._running.values():
            child.send_signal(signal.SIGTERM)
        for child, _, _ in self._running.values():
            try:
                child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()


def _reason(code: int, log: Path) -> str:
    """Why a child failed: its own word of the error, or its last lines."""
    killed = f"killed by {signal.Signals(-code).name}: " if code < 0 else f"exit code {code}: "
    return last_words(log, killed)
