"""`saelight sweep status`: a table of every SAE, from the files that the runs write. Light: no torch."""

import sys
import time
from collections import Counter
from typing import Any

from saelight.sweep.folder import SweepFolder
from saelight.sweep.launch.settle import settle
from saelight.sweep.rows import collect

_COLUMNS = ("name", "state", "device", "step", "loss", "L0", "FVU", "ETA")
_LEFT = (0, 1, 2)


def status(folder: SweepFolder) -> str:
    """The table, and a line that counts the states."""
    settle(folder)
    rows = collect(folder, folder.read())
    lines = [list(_COLUMNS), *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = "\n".join(
        "  ".join(c.ljust(w) if i in _LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )
    counts = Counter(row["state"].partition(":")[0] for row in rows)
    summary = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    errors = {row["group"]: row["error"] for row in rows if row["error"]}
    return "\n".join([table, f"{len(rows)} SAEs: {summary}", *(f"{group} failed: {error}" for group, error in errors.items())])


def watch(folder: SweepFolder, every: float = 2.0) -> None:
    """Show the table again and again until nothing is left to run, or Ctrl-C."""
    while True:
        text = status(folder)
        if sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        print(text, flush=True)
        if not any(f" {state}" in text.splitlines()[-1] for state in ("running", "waiting", "interrupted")):
            return
        time.sleep(every)


def _cells(row: dict[str, Any]) -> list[str]:
    metrics = row["metrics"]
    step = "-" if row["steps"] is None else f"{row['steps']}" + (f"/{row['of_steps']}" if row["of_steps"] else "")
    return [
        row["name"],
        row["state"].partition(":")[0],
        row["device"] or "-",
        step,
        _number(row["loss"], ".4f"),
        _number(metrics.get("l0"), ".1f"),
        _number(metrics.get("fvu"), ".4f"),
        "-" if row["eta"] is None else duration(row["eta"]),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def duration(seconds: float) -> str:
    """`1:02:03`, or `4:05` under an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
