"""An SAE's training curves from its log, thinned to a number of points that a page can hold."""

import csv
import math
from pathlib import Path

LOG = "metrics.csv"
COLUMNS = {"loss": "train/loss", "l0": "train/l0", "fvu": "train/fvu"}
"""What the page draws, and the log's name for it."""
Curve = dict[str, list[float | None]]
"""`step`, and each of COLUMNS: None where nothing finite was logged."""


def read_curve(path: Path, most: int) -> Curve | None:
    """The logged training steps, at most `most` of them (at least 2); None where there is no log with any.

    A row that is damaged, as a kill may leave the last one, is left out.
    """
    rows = []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for line in csv.DictReader(file):
                step = number(line.get("step"))
                if step is not None and line.get(COLUMNS["loss"]):
                    rows.append((step, *(number(line.get(column)) for column in COLUMNS.values())))
    except (OSError, csv.Error):
        return None
    kept = thinned(rows, most)
    return {key: [row[i] for row in kept] for i, key in enumerate(("step", *COLUMNS))} if kept else None


def thinned(rows: list[tuple[float | None, ...]], most: int) -> list[tuple[float | None, ...]]:
    """At most `most` rows in their order: of stretches of equal length, those where the second column is lowest and highest,
    so that no spike is lost, with the first row and the last."""
    if len(rows) <= most:
        return rows
    stretches = max(1, (most - 2) // 2)
    inner = range(1, len(rows) - 1)
    kept = {0, len(rows) - 1}
    if most >= 4:
        for i in range(stretches):
            stretch = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
            known = [j for j in stretch if rows[j][1] is not None] or list(stretch)[:1]
            kept |= {pick(known, key=lambda j: rows[j][1] or 0.0) for pick in (min, max) if known}
    return [rows[i] for i in sorted(kept)]


def number(text: str | None) -> float | None:
    """A finite number of a log; None for whatever else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
