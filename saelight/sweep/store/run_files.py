"""What a group's run says of itself: `progress.json` while it trains and `results.jsonl` at its end. Light: no torch."""

import json
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.run.evaluation_file import on_model

_COUNTED = ("step", "steps", "tokens", "seconds", "loss", "l0", "fvu", "eta")
_KNOWN = frozenset({"name", "state", "reason", "config", "seed", "metrics", "steps", "tokens", "seconds"})

_LARGEST = 1e300

_FIX = "move the run's folder away, and --resume trains it again"


def progress(run: Path) -> dict[str, Any]:
    """How far a run is; nothing where it has not begun, or the file is not one that a run writes."""
    try:
        content = json.loads((run / "progress.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    saes = content.get("saes", {}) if isinstance(content, dict) else None
    whole = isinstance(saes, dict) and _is_counted(content) and all(_is_sae(sae) for sae in saes.values())
    return content if whole else {}


def results(run: Path) -> dict[str, dict[str, Any]]:
    """By SAE: what a run that has come to its end says of it, and what `saelight evaluate` has measured since. Raises
    `UserError` when the run's own word cannot be read."""
    path = run / "results.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): move the run's folder away, and --resume trains it again"
        ) from None
    if not all(map(_is_result, rows)):
        raise UserError(f"{path} is not as a run writes it: {_FIX}")
    return {row["name"]: row | {"metrics": row["metrics"] | on_model(run / "saes" / row["name"])} for row in rows}


def _is_result(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= _KNOWN
        and all(isinstance(row[key], str) for key in ("name", "state"))
        and isinstance(row["reason"], str | None)
        and all(isinstance(row[key], dict) for key in ("config", "metrics"))
        and isinstance(row["config"].get("class_path"), str)
        and isinstance(row["config"].get("init_args"), dict | None)
        and all(isinstance(value, float) or _is_number(value) for value in row["metrics"].values())
        and _is_counted(row)
    )


def _is_sae(sae: Any) -> bool:
    return (
        isinstance(sae, dict)
        and isinstance(sae.get("state"), str)
        and isinstance(sae.get("reason"), str | None)
        and _is_counted(sae)
        and isinstance(sae.get("val", {}), dict)
        and all(_is_number(value) for value in sae.get("val", {}).values())
    )


def _is_counted(content: dict[str, Any]) -> bool:
    return all(_is_number(content.get(key)) for key in _COUNTED) and isinstance(content.get("device"), str | None)


def _is_number(value: Any) -> bool:
    # A comparison, as an int of a thousand digits is no float that could be asked whether it is finite.
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST)
