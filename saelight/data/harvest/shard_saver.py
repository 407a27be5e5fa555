"""Rows that are written as shards on their way to training.

Shapes: N rows.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from saelight.data.row_filter import Piece
from saelight.data.shards.writer import ShardWriter


class Held(NamedTuple):
    """Rows that are in memory."""

    start: int
    """The number of the first of them."""
    piece: Piece
    report: Callable[[str], dict[str, Any]]
    """What was left out before the last of them (`RowFilter.report`)."""

    @property
    def stop(self) -> int:
        """The number after the last of them."""
        return self.start + self.piece.rows


class ShardSaver:
    """Writes the first rows of a text, each when it is first made, to one folder of shards per hook.

    The folders are there, whole, once the last row has come, or with the rows until then when `finish` comes earlier.

    Args:
        writers: What writes them, by hook; they are not yet entered.
        n_rows: Rows after which all is written.
    """

    def __init__(self, writers: Mapping[str, ShardWriter], n_rows: int) -> None:
        self._writers, self._n_rows = writers, n_rows
        self._stack: contextlib.ExitStack | None = None
        self._over = False
        self._last: Held | None = None

    def begin(self) -> None:
        """Make the folders' partial ones. Raises `UserError` where a folder exists or cannot be made."""
        if self._over or self._stack is not None:
            return
        with contextlib.ExitStack() as stack:
            for writer in self._writers.values():
                stack.enter_context(writer)
            self._stack = stack.pop_all()

    def add(self, held: Held) -> None:
        """Write those of some rows that follow on what is written."""
        if self._stack is None:
            return
        done = next(iter(self._writers.values())).n_rows
        if not held.start <= done < held.stop:
            return
        piece = held.piece.take(slice(done - held.start, None))
        try:
            for hook, writer in self._writers.items():
                writer.append(piece.x[hook], **piece.columns)
        except BaseException as error:
            self._over, stack, self._stack = True, self._stack, None
            stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._last = held
        if held.stop >= self._n_rows:
            self.finish()

    def finish(self) -> None:
        """Complete the folders with the rows that have come."""
        if self._stack is None or self._last is None:
            return
        for hook, writer in self._writers.items():
            writer.dropped = [self._last.report(hook)]
            writer.source |= {"documents": int(self._last.piece.columns["document_ids"][-1]) + 1}
        self._over, stack, self._stack = True, self._stack, None
        stack.close()

    def go_on(self, row: int, kept: int) -> None:
        """Training goes on from a row: what came before is not made again, but for the first rows, which are kept.

        Warns where the folders cannot become whole.
        """
        outs = [writer.out for writer in self._writers.values()]
        if row > kept or any(out.exists() for out in outs):
            self._over = True
            warnings.warn(
                f"data.save_to: nothing more is written to {', '.join(map(str, outs))}, as training goes on at row {row:,} "
                "of the text; `saelight shards harvest` writes all of it",
                stacklevel=2,
            )
