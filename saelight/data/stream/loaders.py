"""The loaders: shuffled and endless for training, whole and in order for everything else.

Order, position and resume are explained in docs/data.md; the order itself is `order.py`.

Shapes: B batch, D d_in, N rows of a window.
"""

import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saelight.data.source import Rows
from saelight.data.stream.batches import BatchReader
from saelight.data.stream.bookmarks import Bookmarks, of_all_ranks
from saelight.data.stream.order import BLOCK, WINDOW, Blocks, Plan
from saelight.data.stream.prefetch import Prefetch
from saelight.data.stream.windows import empty, read_finite
from saelight.errors import UserError

_CHUNK = 4096
"""Rows that a sequential read takes at once."""


class TrainStream:
    """Batches (B, D) in the stored dtype, shuffled, each rank its own, from any position exactly.

    Batch g = epoch * len + b holds rows [gB, (g+1)B) of the rank's endless order. An iterator runs from the position to
    the end of its epoch; rows that fill no batch come first in the next epoch.

    Args:
        rows: Where the rows come from.
        blocks: Which of them to train on.
        batch_size: Rows of a batch, on each rank.
        seed: Seed of the order.
        rank: This process' number.
        world: Processes.
        window: Blocks mixed in memory; two windows are held.
        in_order: Whether windows follow one another as the rows stand, and only their own rows are mixed.
        bookmarks: Of rows that are made one after another, and are this rank's alone: where they can go on.
        device: Where windows are held, batches gathered and given out: the accelerator that trains on them. None: in the
            host's memory. The batches are the same.

    Raises:
        UserError: The rows do not fill one batch on each rank; the activations hold a NaN (when it is read).
    """

    def __init__(
        self,
        rows: Rows,
        blocks: Blocks,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        window: int = WINDOW,
        in_order: bool = False,
        bookmarks: Bookmarks | None = None,
        device: torch.device | None = None,
    ) -> None:
        dealt = (rank, world) if bookmarks is None else (0, 1)
        self.rows, self.plan = rows, Plan(blocks, seed, *dealt, window, in_order)
        self.batch_size, self.device = batch_size, device
        self._rank, self._world, self._bookmarks = rank, world, bookmarks
        self.position = 0
        """Batches given out, since the beginning of training."""
        self._length = blocks.rows // (dealt[1] * batch_size)
        if self._length == 0:
            each = f" on each of {world} processes" if world > 1 else ""
            raise UserError(
                f"{blocks.rows} training rows do not fill one batch of {batch_size}{each}; lower data.batch_size"
            )
        self.driven = False
        """Whether a trainer ends the epochs."""
        self._latest: weakref.ref[_Epoch] | None = None

    def __len__(self) -> int:
        """Batches of an epoch: the same on every rank, in every epoch."""
        return self._length

    def __iter__(self) -> "_Epoch":
        # The latest iterator's reader, windows and all, goes on for the next epoch; it is checked to stand right there.
        latest = self._latest and self._latest()
        epoch = _Epoch(self, latest.hand_over() if latest else None)
        self._latest = weakref.ref(epoch)
        return epoch

    def state_dict(self) -> dict[str, Any]:
        """The position, and the settings it means something for. The same on every rank."""
        epoch, batch = divmod(self.position, len(self))
        state = {"epoch": epoch, "batch": batch} | self._settings()
        if self._bookmarks is None:
            return state
        window, _ = next(self.plan.windows(self.position * self.batch_size))
        return state | {"bookmarks": of_all_ranks(self._bookmarks.bookmark(int(window.starts[0])), self._world)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position. Raises `UserError` when the order would be another."""
        for name, here in self._settings().items():
            if (there := state.get(name)) != here:
                raise UserError(
                    f"cannot resume the data: the checkpoint has {name.replace('_', ' ')} {there}, this "
                    f"run has {here}; resume with {there}, or start a new run"
                )
        self.position = state["epoch"] * len(self) + state["batch"]
        if self._bookmarks is not None:
            self._bookmarks.go_to(state["bookmarks"][self._rank])

    def close(self) -> None:
        """Training has ended: nothing more is read ahead."""
        latest = self._latest() if self._latest is not None else None
        if latest is not None:
            latest.close()
        if self._bookmarks is not None:
            self._bookmarks.end()

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.plan.seed,
            "batch_size": self.batch_size,
            "world_size": self._world,
            "training_rows": self.plan.blocks.rows,
            "data_fingerprint": self.rows.fingerprint,
            "block": BLOCK,
            "window": self.plan.window,
            "order": "stored" if self.plan.in_order else "shuffled",
        }

    @property
    def sampler(self) -> "TrainStream":
        """Itself: Lightning calls `loader.sampler.set_epoch` before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Leave it to the trainer to end epochs: they may be shorter (limit_train_batches), and the next one goes on
        where the last one stopped. A new stream starts at `epoch`; later the number says nothing, since Lightning's is
        one too high after a resume from an epoch's end under max_steps."""
        if not self.driven and self.position == 0:
            self.position = epoch * len(self)
        self.driven = True


class _Epoch:
    """An iterator over what is left of the epoch that the stream stands in when the first batch is asked for; over all
    that follows when a trainer ends the epochs."""

    def __init__(self, stream: TrainStream, reader: "BatchReader | None") -> None:
        self._stream, self._reader = stream, reader
        self._end: int | None = None

    def __iter__(self) -> "_Epoch":
        return self

    def __next__(self) -> Tensor:
        stream = self._stream
        if self._end is None:
            self._end = (stream.position // len(stream) + 1) * len(stream)
        if stream.position >= self._end and not stream.driven:
            raise StopIteration
        if self._reader is None or self._reader.position != stream.position:
            self.close()
            self._reader = BatchReader(stream.rows, stream.plan, stream.batch_size, stream.position, stream.device)
        batch = self._reader.next()
        stream.position += 1
        return batch

    def hand_over(self) -> "BatchReader | None":
        reader, self._reader = self._reader, None
        return reader

    def close(self) -> None:
        """Stop reading ahead. Dropping the iterator does the same."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class SequentialStream:
    """Every row of [start, stop) once, in order: batches (B, D) in the stored dtype, the last one partial.

    Each rank reads one contiguous share; shares, and so batches, differ by one at most.

    Args:
        pinned: Give out page-locked memory, which is copied to a CUDA device without waiting.

    Raises:
        UserError: Fewer rows than ranks; the activations hold a NaN (when it is read).
    """

    def __init__(
        self, rows: Rows, start: int, stop: int, batch_size: int, rank: int = 0, world: int = 1, *, pinned: bool = False
    ) -> None:
        if stop - start < world:
            raise UserError(f"{stop - start} rows to evaluate cannot be shared by {world} processes; use fewer")
        self.rows, self.batch_size, self.pinned = rows, batch_size, pinned
        self.n_rows = stop - start
        """Rows of all ranks together."""
        self.first_row = start + rank * (stop - start) // world
        """Number of this rank's first row, in the numbering of `rows`."""
        self.stop_row = start + (rank + 1) * (stop - start) // world
        """Number after this rank's last row."""

    def __len__(self) -> int:
        return -(-(self.stop_row - self.first_row) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        rows, pinned, spans = self.rows, self.pinned, (self.first_row, self.stop_row, self.batch_size)
        batches = Prefetch(lambda stop: _read_in_order(rows, *spans, pinned, stop), slots=3)
        try:
            for _ in range(len(self)):
                yield batches.get()
                batches.release()
        finally:
            batches.close()


def _read_in_order(
    rows: Rows, first: int, end: int, batch_size: int, pinned: bool, stop: threading.Event
) -> Iterator[Tensor]:
    for start in range(first, end, batch_size):
        x_BD = empty(min(batch_size, end - start), rows, pinned)
        rows.will_need(start + len(x_BD), min(batch_size, max(0, end - start - len(x_BD))))
        for done in range(0, len(x_BD), _CHUNK):
            if stop.is_set():
                return
            read_finite(rows, start + done, x_BD[done : done + _CHUNK])
        yield x_BD
