"""A model's rows as training needs them: made one after another, and again from any bookmark.

Shapes: N rows, D width of a hook's rows.
"""

import bisect
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.data.harvest.shard_saver import Held, ShardSaver
from saelight.data.harvest.text_model import Documents, TextModel, digested
from saelight.data.harvest.text_windows import TextWindow
from saelight.data.row_filter import FIRST_ROWS, Limit, Piece, RowFilter
from saelight.data.stopping import check_wanted
from saelight.errors import UserError


class Bookmark(NamedTuple):
    """Where a group of windows begins, and what came before it."""

    rows: int
    """Rows before it."""
    document: int
    """The document that its first window begins in."""
    token: int
    """Tokens of that document before it."""
    digest: str
    """Of all documents up to and with that one."""


class ModelStream:
    """One rank's rows over a text, of all hooks, in the text's order.

    Reading on runs the model, reading back begins again at the nearest bookmark. Rows are a function of the text, the
    settings and their number alone: groups of windows are cut from the text the same way wherever reading begins.

    Args:
        model: What makes the rows.
        n_rows: How many rows there are to be.
        first: The document that they begin with.
        rank: Which documents are this rank's, `first + rank`, `first + rank + world`, …
        world: Ranks.
        limits: The norm limits of the hooks; None: of the first rows.
        once: Whether the text is not read again where it has fewer rows: once it has ended, `n_rows` is how many it has.

    Raises:
        UserError: The text has fewer rows (when they are read).
    """

    def __init__(
        self,
        model: TextModel,
        n_rows: int,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
        limits: Mapping[str, Limit] | None = None,
        once: bool = False,
    ) -> None:
        self.n_rows = n_rows
        self.limits: dict[str, Limit] = dict(limits or {})
        """The norm limits, once they are known."""
        self.saver: ShardSaver | None = None
        """What writes the rows when they are first made, if anything."""
        self.on_batch: Callable[[int], object] = lambda rows: None
        """Told, after each batch of the model, of its rows."""
        self._model, self._first, self._rank, self._world, self._once = model, first, rank, world, once
        self._bookmarks: list[Bookmark] = []
        self._digests: dict[int, str] = {}
        self._kept: list[Held] = []
        self._held: deque[Held] = deque()
        self._made: Iterator[Held] | None = None
        self._lock = threading.Lock()
        self._warned = False

    def keep_first(self, n: int) -> None:
        """Make the first n rows and keep them for good."""
        while (done := self._kept[-1].stop if self._kept else 0) < n:
            held = self._next()
            assert held is not None, "first rows of a text that is read once"
            # Memory of their own: what was made with them beyond n is let go.
            own = held.piece.take(torch.arange(min(n - done, held.piece.rows)))
            self._held.append(held)
            self._kept.append(Held(done, own, held.report))

    def read(self, hook: str, start: int, out_ND: Tensor) -> None:
        """Fill `out_ND` with a hook's rows [start, start + N)."""
        with self._lock:
            done = 0
            for piece in self._pieces(start, len(out_ND)):
                out_ND[done : done + piece.rows] = piece.x[hook]
                done += piece.rows

    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of a column: (n,)."""
        with self._lock:
            return torch.cat([piece.columns[name] for piece in self._pieces(start, n)])

    def make(self, start: int, n: int) -> None:
        """Make rows [start, start + n), as far as there are so many, and hold them until later ones are read."""
        with self._lock:
            if not self._held or start < self._held[0].start:
                self._begin(start)
            while (done := self._held[-1].stop if self._held else 0) < min(start + n, self.n_rows):
                there = self._next()
                if there is not None and there.stop > max(start, done):
                    self._held.append(there)

    def bookmark(self, row: int) -> dict[str, Any]:
        # Without the lock: whoever reads holds it for as long as the model runs.
        at = self._nearest(row)
        last = self._bookmarks[-1] if self._bookmarks else at
        limits = {hook: list(limit) for hook, limit in self.limits.items()}
        return {"at": list(at), "read": [last.document, last.digest], "limits": limits}

    @property
    def last_read(self) -> list[Any]:
        """The last document that was read, and the digest of all up to it: as a bookmark's `read`, of more. Whoever asks is
        who reads."""
        return list(max(self._digests.items(), default=self._nearest(self.n_rows)[1::2]))

    def check(self, bookmark: dict[str, Any]) -> None:
        at = Bookmark(*bookmark["at"])
        if known := {number: digest for number, digest in ((at.document, at.digest), bookmark["read"]) if digest}:
            self._check_text(known)

    def go_to(self, bookmark: dict[str, Any]) -> None:
        at = Bookmark(*bookmark["at"])
        with self._lock:
            self.limits = {hook: Limit(*limit) for hook, limit in bookmark["limits"].items()}
            if at.rows:
                bisect.insort(self._bookmarks, at)
            self._begin(at.rows)
            if self.saver is not None:
                self.saver.go_on(at.rows, self._kept[-1].stop if self._kept else 0)

    def begin(self) -> None:
        if self.saver is not None:
            self.saver.begin()
            for held in [*self._kept, *self._held]:
                self.saver.add(held)

    def end(self) -> None:
        with self._lock:
            if self.saver is not None:
                self.saver.finish()

    def _pieces(self, start: int, n: int) -> Iterator[Piece]:
        """Rows [start, start + n), as they are held. What comes before them is let go."""
        while self._held and self._held[0].stop <= start:
            self._held.popleft()
        done, stop = start, start + n
        while done < stop:
            held = self._holding(done)
            piece = held.piece.take(slice(done - held.start, stop - held.start))
            yield piece
            done += piece.rows

    def _holding(self, row: int) -> Held:
        """What holds a row."""
        for held in self._kept:
            if row < held.stop:
                return held
        if not self._held or row < self._held[0].start:
            self._begin(row)
        while True:
            for held in self._held:
                if row < held.stop:
                    return held
            there = self._next()
            assert there is not None, "rows that the text has not"
            if row < there.stop:
                self._held.append(there)

    def _begin(self, row: int) -> None:
        """Make rows from the last bookmark on from which `row` is reached."""
        self._held.clear()
        self._made = self._make(self._nearest(row))

    def _nearest(self, row: int) -> Bookmark:
        index = bisect.bisect_right(self._bookmarks, row, key=lambda bookmark: bookmark.rows)
        return self._bookmarks[index - 1] if index else Bookmark(0, self._first + self._rank, 0, "")

    def _next(self) -> Held | None:
        """The rows that follow; None where the text has ended, and is read once."""
        if self._made is None:
            self._begin(0)
        assert self._made is not None
        try:
            held = next(self._made, None)
        except BaseException:
            # Nothing more comes of it; who reads on begins anew.
            self._made = None
            self._held.clear()
            raise
        if held is not None and self.saver is not None:
            self.saver.add(held)
        return held

    def _make(self, at: Bookmark) -> Iterator[Held]:
        """What the model makes from there on, with a bookmark for each group of windows; the text again when it ends."""
        rows = at.rows
        while rows < self.n_rows:
            begun, lap = deque[tuple[int, int, str]](), rows
            whole = at[1:3] == (self._first + self._rank, 0)

            def note(window: TextWindow, begun: deque[tuple[int, int, str]] = begun) -> None:
                document, first = window.segments[0].document, window.segments[0].first
                begun.append((document, first, self._digests[document]))
                self._digests = {number: digest for number, digest in self._digests.items() if number >= document}

            row_filter = RowFilter(**self._model.rows_kept, at_most=self.n_rows - rows, limits=self.limits)
            for piece in self._model.pieces(self._mine(at.document), at.token, row_filter, note, self._batch_done):
                self.limits = row_filter.limits
                mark = Bookmark(rows, *begun.popleft())
                # While a limit is waited for, none knows how large a last group is to be.
                known = rows >= FIRST_ROWS or not self._model.cuts_last
                if known and (not self._bookmarks or self._bookmarks[-1].rows < rows):
                    self._bookmarks.append(mark)
                yield Held(rows, piece, row_filter.report)
                rows += piece.rows
            if self._once:
                self._end_with(rows)
                return
            if rows < self.n_rows and whole:
                self._check_lap(rows - lap)
            if self.saver is not None:
                self.saver.finish()
            at = Bookmark(rows, self._first + self._rank, 0, "")

    def _mine(self, start: int) -> Documents:
        """This rank's documents from number `start` on; what came before them, and they, are known by a digest."""
        for number, content, digest in digested(self._model.documents):
            if number >= start and (number - self._first) % self._world == self._rank:
                self._digests[number] = digest
                yield number, content

    def _check_text(self, digests: Mapping[int, str]) -> None:
        last = max(digests)
        for number, _, digest in digested(self._model.documents):
            if digests.get(number, digest) != digest:
                break
            if number == last:
                return
        raise UserError(
            f"the text is not what it was when the checkpoint was written: of its first {last + 1:,} documents one was "
            "added, removed or changed; restore it, or start a new run"
        )

    def _check_lap(self, rows: int) -> None:
        """The text has ended after so many rows. Raises `UserError` where it is too short to be read again."""
        context = self._model.cut.settings.context
        if rows < context:
            whose = f" for process {self._rank} of {self._world}" if self._world > 1 else ""
            raise UserError(
                f"the text holds {rows:,} rows to train on{whose}, less than a window of {context} tokens; name more text"
            )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the text holds {rows:,} rows to train on, and {self.n_rows:,} are wanted: it is read "
                f"{math.ceil(self.n_rows / rows):,} times; name more text, or lower data.rows",
                stacklevel=2,
            )

    def _end_with(self, rows: int) -> None:
        """The text has so many rows and no more. Raises `UserError` where it has none."""
        if not rows:
            raise UserError("the text holds no row that is kept; name other files")
        self.n_rows = rows

    def _batch_done(self, rows: int) -> None:
        check_wanted()
        self.on_batch(rows)
