"""Windows of rows, read ahead: in the host's memory, and from there onto a device.

Shapes: N rows of a window, D d_in.
"""

import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from saelight.data.finite import first_non_finite
from saelight.data.source import Rows
from saelight.data.stream.order import Plan, Window
from saelight.errors import UserError


def read_windows(
    rows: Rows, plan: Plan, start: int, stop: threading.Event, buffers: int, pinned: bool = False
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Each window's rows (N, D) and the order (N,) to take them in, in so many buffers by turns."""
    windows = plan.windows(start)
    ahead = next(windows)
    _hint(rows, ahead[0])
    held: list[Tensor] = []
    for turn in itertools.count():
        (window, skip), ahead = ahead, next(windows)
        _hint(rows, ahead[0])
        if len(held) < buffers:
            held.append(empty(largest(plan), rows, pinned))
        x_ND, done = held[turn % buffers], 0
        for first, size in zip(window.starts.tolist(), window.sizes.tolist(), strict=True):
            if stop.is_set():
                return
            read_finite(rows, first, x_ND[done : done + size])
            done += size
        yield x_ND[:done], plan.order(window)[skip:]


class DeviceWindows:
    """Room for two windows on a device, which are filled by turns: one is gathered from while the next one is copied.

    On CUDA the copy has a stream of its own, so that training's work and the copy go on side by side.
    """

    def __init__(self, rows: Rows, plan: Plan, device: torch.device) -> None:
        n = largest(plan)
        self.device = device
        # Made by the thread that gathers, and so of its stream's memory: what is freed is used again after its last gather.
        self._held = [
            (torch.empty(n, rows.d_in, dtype=rows.dtype, device=device), torch.empty(n, dtype=torch.int64, device=device))
            for _ in range(2)
        ]
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.gathered()

    def gathered(self) -> None:
        """Say, on the thread that gathers, that the window to be filled next was gathered from for the last time."""
        if self._copies is not None:
            # Nobody waits here: what is copied later does, on the device, for the gathers that were asked for until now.
            self._copies.wait_stream(torch.cuda.current_stream(self.device))

    def fill(self, windows: Iterator[tuple[Tensor, np.ndarray]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The same windows, rows and order, on the device. Each is there when it is given out, its host buffer free."""
        for turn, (x_ND, order) in enumerate(windows):
            rows_there, order_there = self._held[turn % 2]
            there_ND, order_there = rows_there[: len(x_ND)], order_there[: len(order)]
            with self._on_the_side():
                there_ND.copy_(x_ND, non_blocking=True)
                order_there.copy_(torch.from_numpy(order), non_blocking=True)
            if self._copies is not None:
                self._copies.synchronize()
            yield there_ND, order_there

    def _on_the_side(self) -> AbstractContextManager[object]:
        return nullcontext() if self._copies is None else torch.cuda.stream(self._copies)


def largest(plan: Plan) -> int:
    """Rows of the largest window."""
    return min(plan.blocks.rows, plan.window * int(plan.blocks.sizes.max()))


def read_finite(rows: Rows, start: int, out: Tensor) -> None:
    """Read and check: a NaN in the shared batch would be a NaN in every SAE."""
    rows.read(start, out)
    if (bad := first_non_finite(out)) is not None:
        raise UserError(
            f"NaN or infinite activations: {rows.where(start + bad)} (row {start + bad} in all); make them again, or leave "
            "that file out"
        )


def empty(n: int, rows: Rows, pinned: bool) -> Tensor:
    """Room in the host's memory for n rows (n, D), page-locked where CUDA is to copy from it."""
    return torch.empty(n, rows.d_in, dtype=rows.dtype, pin_memory=pinned)


def _hint(rows: Rows, window: Window) -> None:
    for first, size in zip(window.starts.tolist(), window.sizes.tolist(), strict=True):
        rows.will_need(first, size)
