"""What a sweep would take: memory, disk and time of each group, predicted."""

from collections.abc import Sequence

from saelight.bars import duration
from saelight.files import table
from saelight.run.memory import moments, size
from saelight.sweep.execute.ask_accelerator import ask
from saelight.sweep.execute.devices import Device
from saelight.sweep.execute.launch import Launcher
from saelight.sweep.execute.oversize import too_large
from saelight.sweep.execute.products import rate
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.groups import memory_of
from saelight.sweep.store.sweep_folder import Group

_FLOAT = 4
_START = 8.0
"""Seconds for a process to start and to end."""


def forecast(groups: Sequence[tuple[Group, list[Entry]]], launcher: Launcher, times: int = 1) -> str:
    """A line per group: device, SAEs, memory, disk, time; the sums; and what no device has room for.

    Args:
        groups: What is left to train, each with its points.
        launcher: That will train it. Speed is measured on the first of its devices, whatever machine a job will be on.
        times: How often a group like these will be trained, one after the other or side by side.
    """
    workers = launcher.workers
    large = too_large(groups, launcher)
    speed = rate_of(launcher.devices)
    free = dict.fromkeys(range(len(workers)), 0.0)
    lines = [("group", "device", "SAEs", "memory", "disk", "time")]
    disk_sum = 0
    for group, entries in groups:
        seconds = _seconds(entries, group.tokens, speed)
        # A checkpoint has the weights and the optimizer's moments; each SAE is exported once.
        disk = sum(_FLOAT * entry.parameters * (2 + moments(entry.sae.get("optimizer"))) for entry in entries)
        device = "none"
        if group.id not in large:
            for _ in range(times):
                worker = min(free, key=lambda i: (free[i], i))
                free[worker] += seconds or 0.0
            device = workers[worker]
            disk_sum += disk * times
        cells = (size(memory_of(entries, launcher.kinds)), size(disk), "?" if seconds is None else duration(seconds))
        lines.append((group.id, device, str(len(entries)), *cells))
    fits = [group for group, _ in groups if group.id not in large]
    known = all(group.tokens for group in fits)
    total = f"about {duration(max(free.values()))}" if known else "time unknown until the data is there"
    n, runs = times * sum(len(group.members) for group in fits), times * len(fits)
    sums = f"{n} SAEs in {runs} groups on {', '.join(workers)}; disk {size(disk_sum)}; {total}" if fits else "nothing"
    return "\n".join([table(lines, left=(0, 1)), *(f"too large: {why}" for why in large.values()), f"to run: {sums}"])


def _seconds(entries: list[Entry], tokens: int | None, speed: float) -> float | None:
    """Dense training takes 6 operations per weight and token; what sparse execution saves is not counted on."""
    if tokens is None:
        return None
    return _START + 6 * tokens * sum(entry.parameters for entry in entries) / speed


def rate_of(devices: list[Device]) -> float:
    """Operations per second of large products on the first device; on the CPU with the threads that a run will have."""
    import torch

    device = devices[0].name
    if device.startswith("cuda"):
        return ask("rate", device)
    return rate(device) * (max(1, torch.get_num_threads() // len(devices)) if device == "cpu" else 1)
