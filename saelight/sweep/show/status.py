"""`saelight sweep status`: a table of every SAE, from the files that the runs write. Light: no torch."""

import sys
import time
from collections import Counter
from typing import Any

from saelight.bars import duration
from saelight.files import table
from saelight.run.fvu_mark import MARK, NOTE
from saelight.run.wanted_l0 import wanted_l0
from saelight.sweep.execute.launch.reconcile import reconcile_jobs
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.runner_lock import is_held
from saelight.sweep.store.sweep_folder import SweepFolder

_COLUMNS = ("name", "state", "device", "step", "loss", "L0", "wanted", "FVU", "ETA")
_LEFT = (0, 1, 2)


def status(folder: SweepFolder) -> str:
    """The table, and a line that counts the states."""
    return _table(_rows(folder))


def _rows(folder: SweepFolder) -> list[dict[str, Any]]:
    reconcile_jobs(folder)
    return collect(folder, folder.read())


def _table(rows: list[dict[str, Any]]) -> str:
    shown = table([_COLUMNS, *map(_cells, rows)], left=_LEFT)
    counts = Counter(row["state"] for row in rows)
    summary = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    errors = {row["group"]: row["error"] for row in rows if row["error"]}
    failures = [f"{group} failed: {error}" for group, error in errors.items()]
    notes = [NOTE] if any(row["fvu_disagrees"] for row in rows) else []
    return "\n".join([shown, *notes, f"{len(rows)} SAEs: {summary}", *failures])


def watch(folder: SweepFolder, every: float = 2.0, patience: float = 15.0) -> None:
    """Show the table again and again until nothing is left to run, nobody has been at work for `patience` seconds, or
    Ctrl-C."""
    seen = time.monotonic()
    while True:
        rows = _rows(folder)
        if sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        print(_table(rows), flush=True)
        left = Counter(row["state"] for row in rows)
        if left["running"] or Journal(folder.path).jobs() or is_held(folder):
            seen = time.monotonic()
        elif not left["waiting"]:
            return
        if time.monotonic() - seen > patience:
            print(f"nobody trains what waits: `saelight sweep run {folder.path} --resume` does")
            return
        time.sleep(every)


def _cells(row: dict[str, Any]) -> list[str]:
    metrics = row["metrics"]
    step = "-" if row["steps"] is None else f"{row['steps']}" + (f"/{row['of_steps']}" if row["of_steps"] else "")
    return [
        row["name"],
        row["state"],
        row["device"] or "-",
        step,
        _number(row["loss"], ".4f"),
        _number(metrics.get("l0"), ".1f"),
        _number(wanted_l0(row["config"]), "g"),
        _number(metrics.get("fvu"), ".4f") + (MARK if row["fvu_disagrees"] else ""),
        "-" if row["eta"] is None else duration(row["eta"]),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
