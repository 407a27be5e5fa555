"""One pass of a model over a text for several runs of a machine: what one has made the others read from memory.

There is no order and no process of the pass's own. A group of windows is known by a digest of all that its rows are a
function of (the model, how and on what it runs, and the windows' tokens), so that what is read is bit for bit what the
reader would have made. Whoever first wants a group makes it, for the hooks of all; who comes to it meanwhile makes the next
one, so that the work of a pass is spread over the devices. Each reader so has the model, which it needs anyway: for groups
that have left memory while it was behind, or when the others have died. A server would be a further copy of the model, and
one more thing that can.

Shapes: N rows, D width of a hook's rows.
"""

import contextlib
import hashlib
import json
import sqlite3
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saelight.data.harvest.pass_folder import clear
from saelight.data.harvest.pass_index import Answer, PassIndex, State
from saelight.data.harvest.text_windows import TextWindow
from saelight.data.harvest.window_batches import WindowRunner
from saelight.data.row_filter import Piece
from saelight.errors import one_line

_T = TypeVar("_T")
_PAUSE = 0.05
"""Seconds between two looks at what another run makes."""
_AHEAD = 8
"""Groups that are looked ahead for one that nobody makes, at most: as many devices as a machine mostly has."""
_FAILURES = (OSError, sqlite3.Error, SafetensorError)
"""What comes of a folder that is gone, full or damaged."""


class SharedPass:
    """Groups of windows through a model, as `WindowRunner` makes them, or as another run has made them.

    Args:
        run: Makes groups for this run's hooks.
        widened: A runner for these places of the same model.
        folder: Where runs find each other (`pass_folder`).
        identity: All but threads, precision and text that the rows depend on, as plain data.
        limit: Bytes that groups may take in memory, those of all runs together.

    A folder that cannot be used, or no longer, is warned of, and the run goes on by itself.
    """

    def __init__(
        self,
        run: WindowRunner,
        widened: Callable[[Sequence[str]], WindowRunner],
        folder: Path,
        identity: Any,
        limit: int,
    ) -> None:
        self._run, self._widened = run, widened
        self._places = dict(run.hooked.paths)
        self._runners: dict[tuple[str, ...], WindowRunner] = {}
        self._identity = hashlib.sha256(json.dumps([identity, run.group], sort_keys=True).encode()).hexdigest()
        tokens = run.group * run.settings.context
        group = tokens * sum(run.hooked.widths.values()) * run.dtype.itemsize
        # What is made ahead leaves room for those who are behind.
        self._ahead = min(_AHEAD, limit // (2 * group))
        self._index: PassIndex | None = None
        try:
            self._index = PassIndex(folder, self._identity, self._places.values(), limit)
            weakref.finalize(self, _leave, self._index)
        except _FAILURES as error:
            self._go_alone(error)

    def pieces(
        self,
        groups: Iterator[list[TextWindow]],
        done: Callable[[int], object],
        left: Callable[[], float],
    ) -> Iterator[Piece]:
        """The rows of groups, in their order.

        Args:
            done: As of `WindowRunner`; told of a group at once where another run has made it.
            left: How many rows are still wanted: what lies beyond is not made ahead.
        """
        cut = _Cut(groups, self._key)
        while (first := cut.at(0)) is not None:
            rows = self._rows(*first, done)
            while rows is None:
                if not self._make_next(cut, done, left()):
                    done(0)
                    time.sleep(_PAUSE)
                rows = self._rows(*first, done)
            cut.groups.popleft()
            yield self._run.piece(first[1], rows)

    def _rows(self, key: str, group: list[TextWindow], done: Callable[[int], object]) -> dict[str, Tensor] | None:
        """A group's rows, however they are come by; None while another run makes it."""
        answer = self._with_index(partial(PassIndex.ask, key=key), Answer(State.GONE))
        if answer.state is State.OTHERS:
            return None
        if answer.state is State.OURS:
            return self._make(key, group, answer.hooks, done)
        if answer.state is State.THERE and (rows := self._with_index(partial(self._read, key=key), None)) is not None:
            done(sum(window.rows for window in group))
            return rows
        return self._run.rows(group, done)

    def _make_next(self, cut: "_Cut", done: Callable[[int], object], left: float) -> bool:
        """Make the next group that nobody makes, while another run makes the first; False where there is none."""
        for number in range(1, self._ahead + 1):
            before = cut.at(number - 1)
            left -= 0 if before is None else sum(window.rows for window in before[1])
            if left <= 0 or (this := cut.at(number)) is None:
                return False
            key, group = this
            answer = self._with_index(partial(PassIndex.ask, key=key, ahead=True), Answer(State.GONE))
            if answer.state is State.OURS:
                self._make(key, group, answer.hooks, lambda rows: done(0))
                return True
        return False

    def _make(
        self, key: str, group: list[TextWindow], places: tuple[str, ...], done: Callable[[int], object]
    ) -> dict[str, Tensor]:
        def tell(rows: int) -> None:
            self._with_index(PassIndex.works, None)
            done(rows)

        try:
            x = self._runner(places).rows(group, tell)
        except BaseException:
            self._with_index(partial(PassIndex.release, key=key), None)
            raise
        self._with_index(partial(self._write, key=key, x=x), None)
        return {hook: x[place] for hook, place in self._places.items()}

    def _runner(self, places: tuple[str, ...]) -> WindowRunner:
        if places not in self._runners:
            self._runners[places] = self._widened(places)
        return self._runners[places]

    def _write(self, index: PassIndex, key: str, x: dict[str, Tensor]) -> None:
        is_there = False
        try:
            if index.reserve(key, sum(x_ND.nbytes for x_ND in x.values())):
                save_file(x, index.partial)
                index.publish(key)
                is_there = True
        except SafetensorError:
            pass  # no room on the file system, which others fill as well: perhaps there is for the next
        finally:
            if not is_there:
                index.release(key)

    def _read(self, index: PassIndex, key: str) -> dict[str, Tensor] | None:
        """A group that is there; None where it has left memory since."""
        try:
            with safe_open(index.path(key), "pt") as file:
                return {hook: file.get_tensor(place) for hook, place in self._places.items()}
        except FileNotFoundError:
            return None

    def _key(self, group: list[TextWindow]) -> str:
        """Of all that a group's rows are a function of; precision and threads are those of the moment."""
        cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        now = [
            torch.get_num_threads(),
            cuda.fp32_precision,
            cpu.fp32_precision,
            torch.are_deterministic_algorithms_enabled(),
        ]
        segments = [[len(segment.ids) for segment in window.segments] for window in group]
        digest = hashlib.blake2b(json.dumps([self._identity, now, segments]).encode(), digest_size=20)
        digest.update(np.array([id_ for window in group for id_ in window.ids], np.int64).tobytes())
        return digest.hexdigest()

    def _with_index(self, use: Callable[[PassIndex], _T], otherwise: _T) -> _T:
        if self._index is None:
            return otherwise
        try:
            return use(self._index)
        except _FAILURES as error:
            self._go_alone(error)
            return otherwise

    def _go_alone(self, error: Exception) -> None:
        self._index = None
        warnings.warn(f"no model pass is shared any more, this run makes its rows itself: {one_line(error)}", stacklevel=2)


class _Cut:
    """Groups that have been cut from the text and not been given out, each with its key."""

    def __init__(self, later: Iterator[list[TextWindow]], key: Callable[[list[TextWindow]], str]) -> None:
        self.groups: deque[tuple[str, list[TextWindow]]] = deque()
        self._later, self._key = later, key

    def at(self, number: int) -> tuple[str, list[TextWindow]] | None:
        """One of them, by its number; None behind the text's end."""
        while len(self.groups) <= number:
            if (group := next(self._later, None)) is None:
                return None
            self.groups.append((self._key(group), group))
        return self.groups[number]


def _leave(index: PassIndex) -> None:
    with contextlib.suppress(*_FAILURES):
        index.leave()
    clear(index.folder)
