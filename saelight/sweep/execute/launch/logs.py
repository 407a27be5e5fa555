"""What a group's training printed: `logs/<group>.txt` in the sweep's folder."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saelight.sweep.store.sweep_folder import SweepFolder

_LOOKED_AT = 200
"""The last lines of a log, in which the cause of an error is looked for."""
_LONGEST = 200
"""Characters of a cause that are shown; the log has the rest."""


def log_of(folder: "SweepFolder", group: str) -> Path:
    """Where a group's output goes, of all its attempts."""
    return folder.path / "logs" / f"{group}.txt"


def last_words(log: Path, how: str, start: int = 0) -> str:
    """Why a process failed, in one short line: its own word of the error, or `how` it ended and the last that it said; and
    where its log is.

    Args:
        start: Bytes of the log that earlier attempts wrote.
    """
    try:
        with log.open("rb") as file:
            file.seek(start)
            said = [line.decode(errors="replace").rstrip() for line in deque(file, maxlen=_LOOKED_AT)]
    except OSError:
        return f"{how}; it left no {log}"
    cause = " ".join(_cause([line for line in said if line.strip()], how).split())
    return f"{cause if len(cause) <= _LONGEST else cause[:_LONGEST] + '…'}; see {log}"


def _cause(lines: list[str], how: str) -> str:
    """saelight's own word, the exception of the last traceback, or the last line."""
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("saelight: error: ")]
    if errors:
        return errors[-1]
    begun = max((i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")), default=None)
    if begun is not None:
        # Indented are the places; the first line after them that is not is the exception.
        exceptions = (line for line in lines[begun + 1 :] if not line.startswith(" "))
        return f"{next(exceptions, lines[-1])} ({how})"
    return f"{how}: {lines[-1]}" if lines else how
