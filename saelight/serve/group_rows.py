"""What a page says of each group of a sweep, and of a run as its only one: state, device, step, ETA, its log."""

import time
from collections import Counter
from typing import Any

from saelight.report.gathered import Gathered
from saelight.sweep.execute.launch.logs import log_of
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.runner_lock import is_held
from saelight.sweep.store.sweep_folder import SweepFolder

_MOST_EVENTS = 20
"""Of a group, the last ones."""


def group_rows(source: Gathered) -> list[dict[str, Any]]:
    """A row per group, in the sweep's order."""
    folder = SweepFolder(source.path) if source.kind == "sweep" else None
    events = Journal(source.path).events() if folder else []
    held = folder is not None and is_held(folder)
    rows = []
    for group in dict.fromkeys(row.group for row in source.rows):
        own = [row for row in source.rows if row.group == group]
        states = Counter(row.state for row in own)
        running = next((row for row in own if row.state == "running"), own[0])
        log = log_of(folder, group) if folder and group else None
        rows.append(
            {
                "group": group,
                "states": states,
                "device": running.device,
                "steps": max((row.steps or 0 for row in own), default=0),
                "of_steps": running.of_steps,
                "eta": running.eta,
                "runner": held,
                "log": log.stat().st_size if log is not None and log.is_file() else None,
                "events": [_event(event) for event in events if event["group"] == group][-_MOST_EVENTS:],
            }
        )
    return rows


def _event(event: dict[str, Any]) -> dict[str, Any]:
    when = event.get("time")
    known = isinstance(when, int | float) and 0 < when < 4e9
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when)) if known else None,
        "event": event["event"],
        "device": event.get("device"),
        "error": event.get("error"),
    }
