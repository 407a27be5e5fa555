"""Sweeps in Python: a file that defines `make_cfgs()`."""

import ast
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from saelight.errors import UserError, did_you_mean

_PLAIN = (str, int, float, bool, type(None))


def run_python(file: Path, settings: set[str], of_yaml: set[str]) -> tuple[dict[str, Any], list[Any]]:
    """The settings and points of a Python sweep: module variables called `settings`, and what `make_cfgs()` returns.

    Args:
        of_yaml: What a YAML sweep may say beside: it is passed on, and refused with its own words.

    Raises:
        UserError: there are no points, or a variable is neither a setting nor a helper. What the file itself raises passes
            through.
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
        _refuse_others(module, file, settings | of_yaml)
        points = module.make_cfgs()
    finally:
        sys.path.remove(str(file.parent))
    if not isinstance(points, list) or not points:
        raise UserError(f"{file}: make_cfgs() must return a list of dicts with something in it, got {points!r}")
    given = sorted(key for key in settings | of_yaml if hasattr(module, key))
    return {key: plain(getattr(module, key), f"{file}: {key}") for key in given}, points


def plain(value: Any, where: str) -> Any:
    """`value` as YAML can write it: numbers of NumPy and torch as Python's, tuples as lists, paths as text.

    Raises:
        UserError: for anything else.
    """
    if isinstance(value, dict):
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value) not in _PLAIN:
        raise UserError(f"{where}: expected text, a number, a list or a dict, got {value!r}")
    return value


def _refuse_others(module: ModuleType, file: Path, known: set[str]) -> None:
    """Raise `UserError` for data at the module's top that would be taken for a setting and counts for nothing."""
    imported = _imported(ast.walk(ast.parse(file.read_bytes())))
    for key, value in vars(module).items():
        helper = key.startswith("_") or key.isupper() or key in imported
        if key not in known and not helper and isinstance(value, (*_PLAIN, dict, list, tuple, set)):
            raise UserError(
                f"{file}: unknown key {key!r}{did_you_mean(key, known)} (a point's own settings belong into what "
                f"make_cfgs() returns; a helper is called _{key} or {key.upper()})"
            )


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    names = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return {alias.asname or alias.name for alias in names}
