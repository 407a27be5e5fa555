"""`results.csv`, `.json` and `.parquet` in a sweep's folder: the rows of all points."""

import contextlib
import csv
import fcntl
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saelight.files import replacing, write_text
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.sweep_folder import Index, SweepFolder

_FIRST = ("sweep", "name", "state", "reason", "variant", "d_sae")


def write(folder: SweepFolder, index: Index) -> list[dict[str, Any]]:
    """Bring the results up to date; each file is replaced whole. Parquet only where pyarrow, an extra, is there.

    The runner and any number of `sweep results` may do so at the same time: they take turns.
    """
    with _turn(folder.path):
        return _write(folder, index)


def _write(folder: SweepFolder, index: Index) -> list[dict[str, Any]]:
    rows = collect(folder, index)
    flat = [flattened(row) for row in rows]
    as_json, as_parquet = folder.path / "results.json", folder.path / "results.parquet"
    text = json.dumps(rows, indent=1) + "\n"
    # Where a runner has written them already: importing pyarrow would take longer than all else.
    current = as_parquet.is_file() and as_json.is_file() and as_json.read_text() == text
    if writes_parquet() and not current:
        _write_parquet(as_parquet, flat)
    write_text(folder.path / "results.csv", _csv(flat))
    write_text(as_json, text)
    return rows


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the right to write the results of a sweep's folder."""
    # The folder itself is what is locked: a file for that would have to be made, and left.
    held = os.open(folder, os.O_RDONLY)
    try:
        # A file system that knows no locks, as some clusters' do not, is written to without.
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def writes_parquet() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def _write_parquet(path: Path, flat: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {key: [row.get(key) for row in flat] for key in columns_of(flat)}
    # A setting may be a number here and text there.
    table = pyarrow.table({key: _one_type(values) for key, values in columns.items()})
    with replacing(path) as partial:
        parquet.write_table(table, partial)


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """A row as columns: `settings.` and `metrics.` one each, other structures as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("settings", "metrics"):
            flat |= {f"{key}.{inner}": _plain(v) for inner, v in value.items()}
        else:
            flat[key] = _plain(value)
    return flat


def columns_of(flat: list[dict[str, Any]]) -> list[str]:
    """All columns: name and state first, then as they come."""
    keys = dict.fromkeys(key for row in flat for key in row)
    return [*_FIRST, *(key for key in keys if key not in _FIRST)]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds != {int}:
        return [None if value is None else float(value) for value in values]
    return values if len(kinds) <= 1 else [None if value is None else str(value) for value in values]


def _csv(flat: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(flat), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
