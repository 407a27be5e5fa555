"""A run's or a sweep's folder, opened for the report."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.report import run_saes, sweep_saes
from saelight.report.curves import LOG
from saelight.report.sae_row import SAERow
from saelight.sweep.store.sweep_folder import SweepFolder

_NAMED = 3
"""SAEs that a remark names; the others it counts."""


@dataclass
class Gathered:
    """All that the report says of one folder."""

    path: Path
    kind: str
    """`run` or `sweep`."""
    name: str
    rows: list[SAERow]
    metric: dict[str, str]
    """Name and goal of what a sweep judges its points by; a run's is the FVU."""
    failed_trials: dict[str, str] = field(default_factory=dict)
    """Of a search, by trial: why it came to nothing."""
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, a sentence each."""


def gather(path: Path) -> Gathered:
    """Read a folder. Raises `UserError` for what is neither a run's nor a sweep's."""
    problems: list[str] = []
    if (path / "index.json").is_file():
        folder = SweepFolder.existing(path)
        index = folder.read()
        rows = sweep_saes.saes_of(folder, index, problems)
        found = Gathered(path, "sweep", index.name, rows, index.metric, index.failed, problems)
    elif run_saes.is_run(path):
        rows = run_saes.saes_of(path, problems)
        found = Gathered(
            path, "run", Path(os.path.realpath(path)).name, rows, {"name": "val/fvu", "goal": "minimize"}, {}, problems
        )
    else:
        raise UserError(_neither(path))
    found.problems += _gaps(found.rows)
    return found


def _neither(path: Path) -> str:
    if not path.is_dir():
        there = "is a file" if path.exists() else "does not exist"
        return f"{path} {there}: name the folder of a run or a sweep, as runs/quickstart"
    inner = sorted(child.name for child in path.iterdir() if run_saes.is_run(child) or (child / "index.json").is_file())
    if inner:
        return f"{path} holds runs and is none: name one, as {path / inner[0]}"
    return (
        f"{path} is no run's folder (no progress.json, results.jsonl, logs or saes) and no sweep's (no index.json): name one"
    )


def _gaps(rows: Iterable[SAERow]) -> list[str]:
    """What single SAEs lack that are no longer trained, and were."""
    ended = [row for row in rows if row.state not in ("waiting", "running", "failed")]
    trained = [row for row in ended if row.state != "interrupted" or row.steps]
    lacking = {
        "no metrics": [row for row in trained if row.state == "finished" and not row.metrics],
        f"no logs/<name>/{LOG}, so no curves": [row for row in trained if not _has(row, "logs", LOG)],
        "no export in saes/": [row for row in trained if row.state == "finished" and not _has(row, "saes", "config.json")],
    }
    return [f"{len(saes)} of {len(trained)} SAEs have {what}: {_names(saes)}" for what, saes in lacking.items() if saes]


def _has(row: SAERow, folder: str, file: str) -> bool:
    own = row.inside(folder)
    return own is not None and (own / file).is_file()


def _names(rows: list[SAERow]) -> str:
    more = len(rows) - _NAMED
    return ", ".join(row.name for row in rows[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def about(rows: Iterable[SAERow]) -> dict[str, Any]:
    """What the SAEs were trained on, as the first export says that can be read."""
    for row in rows:
        if exported := run_saes.description(row):
            source = exported.get("source")
            source = source if isinstance(source, dict) else {}
            return {key: source.get(key) for key in ("model", "hook")} | {"d_in": exported.get("d_in")}
    return {}
