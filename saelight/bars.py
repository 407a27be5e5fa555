"""Progress bars: a terminal or a notebook gets one that moves, a log file a line every ten seconds."""

import sys
from typing import Any

from tqdm import tqdm


def bar(**given: Any) -> tqdm:
    """tqdm's, on stderr, with its own settings."""
    return tqdm(**(settings() | given))


def settings() -> dict[str, Any]:
    """What every bar has of tqdm's settings, unless it says otherwise."""
    interval = 0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 10.0
    return {"file": sys.stderr, "mininterval": interval, "dynamic_ncols": True, "unit_scale": True}


def duration(seconds: float) -> str:
    """`1:02:03`, or `4:05` under an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
