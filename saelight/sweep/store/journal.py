"""`state.jsonl` in a sweep's folder: what happened to each group, a line each, as it happened."""

import json
import time
from pathlib import Path
from typing import Any

_TEXTS = ("device", "error", "job", "launcher", "wandb", "host")
"""Details of an event that are text, where it has them."""


class Journal:
    """Appends events, and tells the last of each group. A line that a kill cut short, or that is none of ours, is left
    out."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.jsonl"

    def add(self, group: str, event: str, **details: Any) -> None:
        """Note `event` (submitted, finished, failed, interrupted) of a group."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time": time.time(), "group": group, "event": event, **details})
        cut = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(("\n" if cut else "") + line + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All events in their order."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(errors="replace").splitlines()
        return [event for event in map(_event, lines) if event is not None]

    def last(self) -> dict[str, dict[str, Any]]:
        """By group: its last event, with the details of its submission."""
        known: dict[str, dict[str, Any]] = {}
        for event in self.events():
            earlier = known.get(event["group"], {}) if event["event"] != "submitted" else {}
            known[event["group"]] = earlier | event
        return known

    def jobs(self, launcher: str | None = None) -> dict[str, str]:
        """By group: the queue's job that is to train it, where it is not known to have ended; only this launcher's."""
        return {
            group: event["job"]
            for group, event in self.last().items()
            if event["event"] == "submitted" and "job" in event and launcher in (None, event.get("launcher"))
        }


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(event, dict) and all(isinstance(event.get(key), str) for key in ("group", "event"))
    return event if whole and all(isinstance(event.get(key, ""), str | None) for key in _TEXTS) else None
