"""The files that documents are in: patterns that work on any machine, in an order that makes any tail a fair sample."""

import fnmatch
import glob
import importlib.util
import random
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from saelight.data.foreign.parquet_file import SUFFIX
from saelight.data.harvest import hub_data, json_lines, unpacked
from saelight.errors import UserError

OF_ROWS = (*json_lines.SUFFIXES, SUFFIX)
"""Suffixes of files that hold many documents."""


def expand(text: str) -> str:
    """Replace `{stdlib}` by Python's standard library and `{package:NAME}` by an installed package's folder."""
    return re.sub(r"\{(\w+)(?::([\w.]+))?\}", _folder, text)


def find(patterns: Sequence[str], exclude: Sequence[str], seed: int, images: bool = False) -> list[Path]:
    """The files that match a glob pattern (`**` goes through folders) or lie in a folder that is named, and match no
    `exclude` pattern, in a seeded order. A folder that `save_to_disk` of datasets wrote counts as one file. Of a folder that
    holds files of rows only these are meant (what lies beside them is about them), unless `images` are.

    Raises `UserError` when a pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        path = expand(pattern)
        there = _inside(Path(path), images) if Path(path).is_dir() else glob.glob(path, recursive=True)
        files = [file for file in there if Path(file).is_file() or hub_data.is_saved(Path(file))]
        if not files:
            raise UserError(f"no file matches {pattern!r}; name files that exist, e.g. 'texts/**/*.txt', or a folder")
        found.update(files)
    refused = [expand(pattern) for pattern in exclude]
    kept = sorted(f for f in found if not any(fnmatch.fnmatch(Path(f).as_posix(), pattern) for pattern in refused))
    if not kept:
        raise UserError(f"all {len(found)} files are excluded; narrow `exclude`")
    random.Random(seed).shuffle(kept)
    return [Path(f) for f in kept]


def _inside(folder: Path, images: bool) -> list[str]:
    if hub_data.is_saved(folder):
        return [str(folder)]
    files = glob.glob(f"{glob.escape(str(folder))}/**", recursive=True)
    if images:
        return files
    rows = [file for file in files if unpacked.kind(Path(file)) in OF_ROWS or hub_data.is_saved(Path(file))]
    return rows or files


def _folder(match: re.Match) -> str:
    kind, name = match.groups()
    if kind == "stdlib" and name is None:
        return sysconfig.get_path("stdlib")
    if kind == "package" and name:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"{match[0]}: no package {name!r} is installed; pip install {name.replace('_', '-')}")
        return spec.submodule_search_locations[0]
    raise UserError(f"{match[0]} is no placeholder; write {{stdlib}} or {{package:NAME}}")
