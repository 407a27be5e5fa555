"""Rows that are written as shards on their way to training.

Shapes: N rows.
"""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saelight.data.row_filter import Piece
from saelight.data.shards.metadata import is_shards
from saelight.data.shards.reader import TOKEN_COLUMNS, ShardedRows
from saelight.data.shards.writer import ShardWriter

_COPIED = 8192
"""Rows that are copied at once."""


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

    The folders are there, whole, once the last row has come, or with the rows until then when `finish` comes earlier. Those
    of a run that was interrupted are set aside (`<out>.before`) and copied, so that the resumed run's are whole.

    Args:
        writers: What writes them, by hook; they are not yet entered.
        folders: Where they write.
        n_rows: Rows after which all is written.
    """

    def __init__(self, writers: Mapping[str, ShardWriter], folders: Mapping[str, Path], n_rows: int) -> None:
        self._writers, self._folders, self._n_rows = writers, folders, n_rows
        self._before: dict[str, ShardedRows] = {}
        """What the interrupted run wrote."""
        self._stack: contextlib.ExitStack | None = None
        self._over = False
        self._last: Held | None = None

    def begin(self) -> None:
        """Make the folders' partial ones. Raises `UserError` where a folder exists or cannot be made."""
        if self._over or self._stack is not None:
            return
        with contextlib.ExitStack() as stack:
            for hook, writer in self._writers.items():
                stack.enter_context(writer)
                if hook in self._before:
                    _copy(self._before[hook], writer)
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
        if self._stack is None:
            return
        self._over, stack, self._stack = True, self._stack, None
        for hook, writer in self._writers.items():
            before = self._before.get(hook)
            writer.dropped = [*(before.known.dropped if before else ()), *([self._last.report(hook)] if self._last else ())]
        stack.close()
        for rows in self._before.values():
            shutil.rmtree(str(rows.path))

    def go_on(self, row: int, kept: int) -> None:
        """Training goes on from a row: those before it are not made again, but for the first ones, which are kept.

        Warns where the folders cannot become whole.
        """
        if self._over or self._stack is not None:
            return
        there = {hook: self._there(out) for hook, out in self._folders.items()}
        rows = min(0 if stored is None else stored.n_rows for stored in there.values())
        if rows >= self._n_rows:
            self._over = True  # all is written
        elif rows and rows >= row:
            for hook, out in self._folders.items():
                if out.exists():
                    out.rename(set_aside(out))
                self._before[hook] = ShardedRows(set_aside(out))
        elif row > kept or rows:
            self._over = True
            outs = ", ".join(map(str, self._folders.values()))
            warnings.warn(
                f"data.save_to: {outs} is not written, as training goes on at row {row:,} of the text, and what came before "
                "was not saved; `saelight shards harvest` writes all of it",
                stacklevel=2,
            )

    @staticmethod
    def _there(out: Path) -> ShardedRows | None:
        """What an interrupted run left of a folder."""
        return next((ShardedRows(path) for path in (set_aside(out), out) if is_shards(path)), None)


def set_aside(out: Path) -> Path:
    """Where shards that are to be gone on with wait."""
    return out.with_name(f"{out.name}.before")


def _copy(rows: ShardedRows, writer: ShardWriter) -> None:
    names = [name for name in TOKEN_COLUMNS if name in rows.columns]
    for start in range(0, rows.n_rows, _COPIED):
        x_ND = torch.empty(min(_COPIED, rows.n_rows - start), rows.d_in, dtype=rows.dtype)
        rows.read(start, x_ND)
        writer.append(x_ND, **{name: rows.column(name, start, len(x_ND)) for name in names})
