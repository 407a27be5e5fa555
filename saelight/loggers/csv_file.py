"""CSV files of metrics that survive kills and resumes.

Lightning's CSVLogger deletes the file of the run that it goes on with, and holds rows back in memory.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saelight.files import replacing
from saelight.loggers.sink import Sink, SinkRun

STEP = "step"


class CSVSink(Sink):
    """Opens `logs/<sae>/metrics.csv`."""

    def open(self, folder: Path, name: str, config: dict[str, Any]) -> "CSVFile":
        return CSVFile(folder / "logs" / name / "metrics.csv")


class CSVFile(SinkRun):
    """Rows of metrics by step. A row is on its way to the disk when `log` returns; a kill costs none.

    Args:
        path: the file, which may exist: rows are added to it. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        self._standing: tuple[int, list[set[str]]] = (-1, [])
        """The step that training goes on from, and the metrics of each row that it has already."""
        if path.is_file():
            # Also takes away a half-written last row: new ones would be glued to it.
            self._rewrite(self._header(), keep=lambda row: True)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add a row; a metric never seen before adds a column, empty in the rows before."""
        if step == self._standing[0] and set(metrics) in self._standing[1]:
            return  # a validation repeated after a resume, to the same numbers
        row = {STEP: step, **metrics}
        new = [name for name in row if name not in self._columns]
        if new:
            self._rewrite(self._columns + new, keep=lambda row: True)
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([row.get(name, "") for name in self._columns])

    def resume(self, step: int) -> None:
        """Take away the rows later than `step`: training goes on from there."""
        if self._columns:
            rows = self._rewrite(self._columns, keep=lambda row: int(row[STEP]) <= step)
            last = [row for row in rows if int(row[STEP]) == step]
            self._standing = step, [{key for key, value in row.items() if value and key != STEP} for row in last]

    def _header(self) -> list[str]:
        with self.path.open(newline="") as file:
            first = file.readline()
        return next(csv.reader([first])) if first.endswith("\n") else []

    def _rewrite(self, columns: list[str], keep: Callable[[dict[str, str]], bool]) -> list[dict[str, str]]:
        """Replace the file by its whole rows that are to be kept, under `columns`, and return them; at no time is there half
        a file."""
        rows = []
        if self._columns or self.path.is_file():
            whole = self.path.read_text().rpartition("\n")[0]
            rows = [row for row in csv.DictReader(whole.splitlines()) if keep(row)]
        with replacing(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns
        return rows
