"""Text files as documents: patterns that work on any machine, in an order that makes any tail a fair sample."""

import fnmatch
import glob
import importlib.util
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from saelight.errors import UserError


def expand(text: str) -> str:
    """Replace `{stdlib}` by Python's standard library and `{package:NAME}` by an installed package's folder."""
    return re.sub(r"\{(\w+)(?::([\w.]+))?\}", _folder, text)


def find(patterns: Sequence[str], exclude: Sequence[str], seed: int) -> list[Path]:
    """The files that match a glob pattern (`**` goes through folders) and no `exclude` pattern, in a seeded order.

    Raises `UserError` when a pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        files = [f for f in glob.glob(expand(pattern), recursive=True) if Path(f).is_file()]
        if not files:
            raise UserError(f"no file matches {pattern!r}; name text files that exist, e.g. 'texts/**/*.txt'")
        found.update(files)
    refused = [expand(pattern) for pattern in exclude]
    kept = sorted(f for f in found if not any(fnmatch.fnmatch(Path(f).as_posix(), pattern) for pattern in refused))
    if not kept:
        raise UserError(f"all {len(found)} files are excluded; narrow `exclude`")
    random.Random(seed).shuffle(kept)
    return [Path(f) for f in kept]


class Documents:
    """The texts of `paths`, one document a file, read as they are asked for. Files that are no UTF-8 text are skipped."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.skipped = 0
        """Files skipped so far."""

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (UnicodeDecodeError, OSError):
                text = "\0"
            if "\0" in text:
                self.skipped += 1
            elif text.strip():
                yield text


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
