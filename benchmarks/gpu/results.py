"""What a part has measured, on the disk after each number, and the time that it has left."""

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saelight.files import write_text


class Results:
    """Tables of a part's results.

    Args:
        file: JSON, written after each result.
        seconds: From now, for all of them.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.end = file, time.monotonic() + seconds
        self.tables: dict[str, dict[str, Any]] = {}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def put(self, table: str, row: str, value: Any) -> None:
        """Keep a number, some words, or a dict of them."""
        self.tables.setdefault(table, {})[row] = value
        write_text(self.file, json.dumps(self.tables), durable=False)
        print(f"{table}: {row}: {value}", flush=True)

    def measure(self, table: str, row: str, call: Callable[[], Any], needs: float = 4.0) -> None:
        """Keep what `call` returns, or the error that it raises; it is not called with less than `needs` seconds left."""
        if self.left < needs:
            return self.put("left out", f"{table}, {row}", "no time")
        try:
            value = call()
        except Exception:
            self.put("errors", f"{table}, {row}", traceback.format_exc()[-2000:])
        else:
            self.put(table, row, value)
