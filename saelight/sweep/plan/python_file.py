"""Sweeps in Python: a file that defines `make_cfgs()`."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from saelight.errors import UserError


def run_python(file: Path, settings: set[str]) -> tuple[dict[str, Any], list[Any]]:
    """The settings and points of a Python sweep: module variables called `settings`, and what `make_cfgs()` returns.

    Raises:
        UserError: there are no points. What the file itself raises passes through.
    """
    if not file.is_file():
        raise UserError(f"{file} cannot be read: no such file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is no Python file: give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Helpers beside the file are importable, as they are for a script.
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "make_cfgs"):
            raise UserError(f"{file} defines no make_cfgs(): it returns the points, a list of nested dicts")
        points = module.make_cfgs()
    finally:
        sys.path.remove(str(file.parent))
    if not isinstance(points, list) or not points:
        raise UserError(f"{file}: make_cfgs() must return a list of dicts with something in it, got {points!r}")
    return {key: getattr(module, key) for key in settings if hasattr(module, key)}, points
