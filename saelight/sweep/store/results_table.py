"""`saelight.results(FOLDER)`: what is known of every SAE of a sweep or of a run, as a table. Light: no torch."""

from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.sweep.store import run_files
from saelight.sweep.store.result_files import columns_of, flattened
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.sweep_folder import SweepFolder


def rows_of(folder: str | Path) -> list[dict[str, Any]]:
    """One dict per SAE, its settings and metrics as dicts in it: of a sweep, also while it runs, or of a run that has ended.

    Raises:
        UserError: The folder is neither a sweep's nor a run's.
    """
    path = Path(folder)
    if (path / "index.json").is_file():
        sweep = SweepFolder.existing(folder)
        return collect(sweep, sweep.read())
    if rows := list(run_files.results(path).values()):
        return [
            row | {"variant": row["config"]["class_path"].rpartition(".")[2], "settings": {}, "group": path.name}
            for row in rows
        ]
    raise UserError(f"{folder} holds no results: give a sweep's folder, or that of a run that has ended")


def results(folder: str | Path) -> list[dict[str, Any]]:
    """What is known of every SAE of a sweep's or a run's folder: one flat dict each, all with the same keys.

    `pandas.DataFrame(saelight.results("runs/quick"))` is a table with a column for each metric (`metrics.fvu`) and each
    setting that the sweep varies (`settings.sae.lr`), as in `results.csv`.

    Raises:
        UserError: The folder is neither a sweep's nor a run's.
    """
    flat = [flattened(row) for row in rows_of(folder)]
    columns = columns_of(flat)
    return [{key: row.get(key) for key in columns} for row in flat]
