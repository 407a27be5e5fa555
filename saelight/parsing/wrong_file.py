"""A sweep file given to `fit`: what to do with it, in place of a complaint about its first key."""

import itertools
from pathlib import Path

import yaml

_SWEEPS_OWN = {"base", "parameters", "cases", "runs", "zip", "run_cap", "early_terminate", "max_saes"}


def sweep_among(args: list[str]) -> str | None:
    """The line for the first config that a command line names and that is a sweep's, if one is."""
    files = [file for flag, file in itertools.pairwise(args) if flag in ("-c", "--config")]
    for file in files + [word.partition("=")[2] for word in args if word.startswith("--config=")]:
        if Path(file).suffix == ".py":
            return f"{file} is a Python file, and no config: a sweep in Python is for `saelight sweep run {file}`"
        try:
            content = yaml.safe_load(Path(file).read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and _SWEEPS_OWN & content.keys() and "model" not in content:
            return f"{file} is a sweep file, and no config: `saelight sweep run {file}` trains it"
    return None
