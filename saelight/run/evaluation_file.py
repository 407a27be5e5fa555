"""`evaluation.json` beside a trained SAE: what its language model loses with it (docs/evaluate.md). Light: no torch."""

import json
import math
import os
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.files import write_text
from saelight.run.metric_names import ON_MODEL, UNSPLICED

NAME = "evaluation.json"
_FORMAT, _VERSION = "saelight-evaluation", 1
_LARGEST = 64 * 2**20  # bytes; with a position of 8,192 each some hundred thousand


def beside(sae: Path) -> Path:
    """The file of an SAE that is a folder, or a file."""
    return sae.with_name(f"{sae.stem}.{NAME}") if sae.is_file() else sae / NAME


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the file, whole or not at all. JSON has no NaN: null."""
    metrics = {key: value if math.isfinite(value) else None for key, value in content["metrics"].items()}
    whole = {"format": _FORMAT, "version": _VERSION} | content | {"metrics": metrics}
    write_text(path, json.dumps(whole, indent=1) + "\n")


def read(sae: Path) -> dict[str, Any]:
    """What the file beside an SAE holds; nothing where there is none, or none that `write` wrote."""
    path = beside(sae)
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(content, dict) and content.get("format") == _FORMAT and content.get("version") == _VERSION
    return content if known and isinstance(content.get("metrics"), dict) else {}


def on_model(sae: Path) -> dict[str, float | None]:
    """What a table of results takes of it: the metrics that only a model can tell. L0, FVU and their like stay those of the
    run's own validation."""
    metrics = read(sae).get("metrics", {})
    found = {key: metrics[key] for key in (*ON_MODEL, *UNSPLICED) if key in metrics}
    return {key: x for key, x in found.items() if x is None or (isinstance(x, float) and math.isfinite(x))}


def writable(sae: Path) -> None:
    """Raise `UserError` where nothing could be written beside an SAE, before hours of work are lost by it."""
    if not os.access(folder := beside(sae).parent, os.W_OK):
        raise UserError(
            f"{folder} cannot be written to, where {NAME} belongs: copy the SAE, or give yourself the right to it"
        )
