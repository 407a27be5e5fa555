"""What a sweep would take: memory, disk and time of each group, predicted."""

from typing import TYPE_CHECKING

from saelight.files import table
from saelight.sweep.execute.progress_line import duration

if TYPE_CHECKING:
    from saelight.sweep.execute.session import Session

_FLOAT = 4
_START = 8.0
"""Seconds for a process to start and to end."""


def forecast(session: "Session") -> str:
    """A line per group: device, SAEs, memory, disk, time; and the sums."""
    groups = session.to_run()
    workers = session.devices[: session.request.parallel] if session.request.launcher == "local" else session.devices[:1]
    rate = _rate(session)
    free = dict.fromkeys(range(len(workers)), 0.0)
    lines = [("group", "device", "SAEs", "memory", "disk", "time")]
    disk_sum = 0
    for group in groups:
        entries = session.entries(group)
        seconds = _seconds(entries, group.tokens, rate)
        worker = min(free, key=lambda i: (free[i], i))
        free[worker] += seconds or 0.0
        # A checkpoint has the weights and AdamW's two moments; each SAE is exported once.
        disk = sum(4 * _FLOAT * entry.parameters for entry in entries)
        disk_sum += disk
        lines.append(
            (
                group.id,
                workers[worker].name,
                str(len(entries)),
                _size(group.memory),
                _size(disk),
                "?" if seconds is None else duration(seconds),
            )
        )
    known = all(group.tokens for group in groups)
    total = f"about {duration(max(free.values()))}" if known and groups else "time unknown until the data is there"
    n = sum(len(group.members) for group in groups)
    return "\n".join(
        [
            table(lines, left=(0, 1)),
            f"to run: {n} SAEs in {len(groups)} groups on {', '.join(d.name for d in workers)}; "
            f"disk {_size(disk_sum)}; {total}",
        ]
    )


def _seconds(entries: list, tokens: int | None, rate: float) -> float | None:
    """Dense training takes 6 operations per weight and token; what sparse execution saves is not counted on."""
    if tokens is None:
        return None
    return _START + 6 * tokens * sum(entry.parameters for entry in entries) / rate


def _rate(session: "Session") -> float:
    """Operations per second of a large product on the first device."""
    import time

    import torch

    device = session.devices[0].name
    cpu = device == "cpu"
    n = 512 if cpu else 4096
    threads = torch.get_num_threads()
    if cpu:
        torch.set_num_threads(max(1, threads // len(session.devices)))
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
