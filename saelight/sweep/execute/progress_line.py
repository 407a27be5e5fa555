"""What `saelight sweep run` says while it works: lasting lines, and below them one that is kept up to date."""

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from saelight.bars import duration

_SHOWN = 3
"""The most runs that the line names."""


class Progress:
    """On a terminal the moving line is replaced in place; elsewhere, as in a log, it comes every five minutes."""

    def __init__(self, stream: TextIO | None = None, every: float = 300.0) -> None:
        self._stream = stream or sys.stdout
        self._every = every
        self._last = time.monotonic()
        self._covered = False

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        print(line, file=self._stream, flush=True)

    def update(self, rows: Sequence[dict[str, Any]]) -> None:
        """Say how far the runs are, from a row per point (`rows.collect`)."""
        if self._stream.isatty():
            self._clear()
            print(line(rows)[: shutil.get_terminal_size().columns - 1], end="", file=self._stream, flush=True)
            self._covered = True
        elif time.monotonic() - self._last > self._every:
            self._last = time.monotonic()
            print(line(rows), file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._covered:
            print("\r\x1b[K", end="", file=self._stream)
        self._covered = False


def line(rows: Sequence[dict[str, Any]]) -> str:
    """`5 of 18 SAEs ended; group-001 41 %, 0:35 left; group-002 12 %, 1:20 left`"""
    running = {row["group"]: row for row in rows if row["state"] == "running"}
    ended = sum(row["state"] not in ("running", "waiting", "begun", "interrupted") for row in rows)
    parts = [f"{ended} of {len(rows)} SAEs ended"]
    for group, row in list(running.items())[:_SHOWN]:
        far = "starts" if not row["of_steps"] else f"{100 * (row['steps'] or 0) // row['of_steps']} %"
        parts.append(f"{group} {far}" + (f", {duration(row['eta'])} left" if row["eta"] is not None else ""))
    if len(running) > _SHOWN:
        parts.append(f"{len(running) - _SHOWN} more run")
    return "; ".join(parts)
