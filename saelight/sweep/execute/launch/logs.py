"""What a group's training printed: `logs/<group>.txt` in the sweep's folder."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saelight.sweep.store.sweep_folder import SweepFolder

_LAST_LINES = 12


def log_of(folder: "SweepFolder", group: str) -> Path:
    """Where a group's output goes, of all its attempts."""
    return folder.path / "logs" / f"{group}.txt"


def last_words(log: Path, how: str) -> str:
    """Why a process failed: its own word of the error, or `how` it ended and its last lines."""
    try:
        with log.open(errors="replace") as file:
            lines = [line.rstrip() for line in deque(file, maxlen=200) if line.strip()]
    except FileNotFoundError:
        return f"{how}it left no {log}"
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("saelight: error: ")]
    return errors[-1] if errors else how + " | ".join(lines[-_LAST_LINES:])
