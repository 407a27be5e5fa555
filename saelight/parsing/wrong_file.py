"""A sweep file given to `fit`: what to do with it, in place of a complaint about its first key."""

from collections.abc import Iterable
from pathlib import Path

import yaml

_SWEEPS_OWN = {"base", "parameters", "cases", "runs", "zip", "run_cap", "early_terminate", "max_saes"}


def sweep_among(files: Iterable[str]) -> str | None:
    """The line for the first of these files that is a sweep's, if one is."""
    for file in files:
        if Path(file).suffix == ".py":
            return f"{file} is a Python file, and no config: a sweep in Python is for `saelight sweep run {file}`"
        try:
            content = yaml.safe_load(Path(file).read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and _SWEEPS_OWN & content.keys() and "model" not in content:
            return f"{file} is a sweep file, and no config: `saelight sweep run {file}` trains it"
    return None
