"""How fast a device multiplies matrices."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SPAN, _SPANS = 0.1, 4
"""Seconds of products that the speed is measured by, and how often: some clocks tick a hundred times a second."""


def rate(device: str) -> float:
    """Operations per second of large products, at their best in some short spans.

    On the CPU it is one thread's, by the time that the thread had the processor: what else the machine does just now is no
    part of it.
    """
    import torch

    cpu = device == "cpu"
    n = 512 if cpu else 4096
    threads = torch.get_num_threads()
    clock = time.thread_time if cpu else time.perf_counter
    if cpu:
        torch.set_num_threads(1)
    try:
        a = torch.randn(n, n, device=device)
        return max(_in_a_span(a, clock) for _ in range(_SPANS))
    finally:
        torch.set_num_threads(threads)


def _in_a_span(a: "torch.Tensor", clock: Callable[[], float]) -> float:
    products, start = 0, clock()
    while (took := clock() - start) < _SPAN:
        # Reading a number waits for the device.
        (a @ a)[0, 0].item()
        products += 1
    return products * 2 * len(a) ** 3 / took
