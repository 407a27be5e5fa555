"""Batches cut from windows: gathered by the host for training on it, else by the device that trains on them.

Shapes: B batch, D d_in, N rows of a window.
"""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelight.data.source import Rows
from saelight.data.stream.order import Plan
from saelight.data.stream.prefetch import Prefetch
from saelight.data.stream.windows import DeviceWindows, read_windows


class BatchReader:
    """Cuts batches (B, D) in the stored dtype from windows that a thread reads ahead.

    Args:
        position: Batches to begin after.
        device: Where batches are gathered, from windows copied there whole. None: in the host's memory.
    """

    def __init__(self, rows: Rows, plan: Plan, batch_size: int, position: int, device: torch.device | None = None) -> None:
        self.position = position
        self._shape, self._dtype, self._device = (batch_size, rows.d_in), rows.dtype, device
        there = self._there = None if device is None else DeviceWindows(rows, plan, device)
        start = position * batch_size

        def windows(stop: threading.Event) -> Iterator[tuple[Tensor, Any]]:
            if there is None:
                return read_windows(rows, plan, start, stop, buffers=2)
            # What is copied is free at once: one buffer is enough, and is read into while the device has two.
            return there.fill(read_windows(rows, plan, start, stop, 1, pinned=there.device.type == "cuda"))

        self._windows: Prefetch[tuple[Tensor, Any]] = Prefetch(windows, slots=2)
        self._x_ND: Tensor | None = None
        self._order: Any = ()
        """What is left of the window's order: an array, on a device a tensor."""

    def next(self) -> Tensor:
        """The batch at `position`, in memory of its own."""
        x_BD, filled = torch.empty(self._shape, dtype=self._dtype, device=self._device), 0
        while filled < len(x_BD):
            if len(self._order) == 0:
                self._next_window()
            n = min(len(x_BD) - filled, len(self._order))
            take, self._order = self._order[:n], self._order[n:]
            self._gather(take, x_BD[filled : filled + n])
            filled += n
        self.position += 1
        return x_BD

    def _next_window(self) -> None:
        if self._x_ND is not None:
            if self._there is not None:
                self._there.gathered()
            self._windows.release()
        self._x_ND, self._order = self._windows.get()

    def _gather(self, take: Any, out_ND: Tensor) -> None:
        assert self._x_ND is not None
        if self._there is not None:
            torch.index_select(self._x_ND, 0, take, out=out_ND)
        else:
            # numpy, on this thread alone: it keeps up with the disk, and a team of threads would wait for each other
            # while the reading thread holds one of their cores. mode="clip" writes to `out` without a copy.
            np.take(_raw(self._x_ND), take, axis=0, out=_raw(out_ND), mode="clip")

    def close(self) -> None:
        """Stop reading ahead. Dropping the reader does the same."""
        self._windows.close()


def _raw(x_ND: Tensor) -> np.ndarray:
    """The same memory as bytes: (N, D * item size)."""
    return x_ND.view(torch.uint8).numpy()
