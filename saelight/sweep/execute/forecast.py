"""What a sweep would take: memory, disk and time of each group, predicted."""

from collections.abc import Sequence

from saelight.files import table
from saelight.sweep.execute.devices import Device
from saelight.sweep.execute.launch import Launcher
from saelight.sweep.execute.progress_line import duration
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.memory import moments
from saelight.sweep.store.sweep_folder import Group

_FLOAT = 4
_START = 8.0
"""Seconds for a process to start and to end."""


def forecast(groups: Sequence[tuple[Group, list[Entry]]], launcher: Launcher) -> str:
    """A line per group: device, SAEs, memory, disk, time; and the sums.

    Args:
        groups: What is left to train, each with its points.
        launcher: That will train it. Speed is measured on the first of its devices, whatever machine a job will be on.
    """
    workers = launcher.workers
    rate = _rate(launcher.devices)
    free = dict.fromkeys(range(len(workers)), 0.0)
    lines = [("group", "device", "SAEs", "memory", "disk", "time")]
    disk_sum = 0
    for group, entries in groups:
        seconds = _seconds(entries, group.tokens, rate)
        worker = min(free, key=lambda i: (free[i], i))
        free[worker] += seconds or 0.0
        # A checkpoint has the weights and the optimizer's moments; each SAE is exported once.
        disk = sum(_FLOAT * entry.parameters * (2 + moments(entry.sae.get("optimizer"))) for entry in entries)
        disk_sum += disk
        lines.append(
            (
                group.id,
                workers[worker],
                str(len(entries)),
                _size(group.memory),
                _size(disk),
                "?" if seconds is None else duration(seconds),
            )
        )
    known = all(group.tokens for group, _ in groups)
    total = f"about {duration(max(free.values()))}" if known else "time unknown until the data is there"
    n = sum(len(group.members) for group, _ in groups)
    return "\n".join(
        [
            table(lines, left=(0, 1)),
            f"to run: {n} SAEs in {len(groups)} groups on {', '.join(workers)}; disk {_size(disk_sum)}; {total}",
        ]
    )


def _seconds(entries: list[Entry], tokens: int | None, rate: float) -> float | None:
    """Dense training takes 6 operations per weight and token; what sparse execution saves is not counted on."""
    if tokens is None:
        return None
    return _START + 6 * tokens * sum(entry.parameters for entry in entries) / rate


def _rate(devices: list[Device]) -> float:
    """Operations per second of a large product on the first device."""
    import time

    import torch

    device = devices[0].name
    cpu = device == "cpu"
    n = 512 if cpu else 4096
    threads = torch.get_num_threads()
    if cpu:
        torch.set_num_threads(max(1, threads // len(devices)))
    a = torch.randn(n, n, device=device)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        # Reading a number waits for the device.
        (a @ a)[0, 0].item()
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * n**3 / min(times)


def _size(n: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
