"""Progress bars: a terminal or a notebook gets one that moves, a log file a line every ten seconds."""

import sys
from typing import Any

from tqdm import tqdm


def bar(**settings: Any) -> tqdm:
    """tqdm's, on stderr, with its own settings."""
    interval = 0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 10.0
    settings = {"file": sys.stderr, "mininterval": interval, "dynamic_ncols": True, "unit_scale": True} | settings
    return tqdm(**settings)
