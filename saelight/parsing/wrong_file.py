"""A sweep file given to `fit`: what to do with it, in place of a complaint about its first key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saelight.errors import UserError

_SWEEPS_OWN = {"base", "parameters", "cases", "runs", "zip", "run_cap", "early_terminate", "max_saes"}


def refuse_python(path: str | Path) -> None:
    """Raise `UserError` for a Python file, which may hold a sweep."""
    if Path(path).suffix == ".py":
        raise UserError(f"{path} is a Python file, and no config: a sweep in Python is for `saelight sweep run {path}`")


def refuse_sweep(path: str | Path, content: Mapping[str, Any]) -> None:
    """Raise `UserError` where a config file holds a sweep."""
    if _SWEEPS_OWN & content.keys() and "model" not in content:
        raise UserError(f"{path} is a sweep file, and no config: `saelight sweep run {path}` trains it")
