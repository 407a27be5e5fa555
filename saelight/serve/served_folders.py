"""Which folders are shown: runs and sweeps inside the roots that were given at start, and nothing that leads out of them."""

import os
from collections.abc import Sequence
from pathlib import Path

from saelight.errors import UserError, did_you_mean
from saelight.report import run_saes

_DEEPEST = 6
"""Folders below a run's own in which links are looked for: a sweep has runs/<group>/saes/<name>/latents/."""


class Roots:
    """The folders that were named at start. A request names a run by its key, which is no path.

    Args:
        given: Folders that hold runs and sweeps, or are one.

    Raises:
        UserError: One is not there.
    """

    def __init__(self, given: Sequence[str | Path]) -> None:
        self.paths = list(dict.fromkeys(Path(os.path.realpath(path)) for path in given))
        for path in self.paths:
            if not path.is_dir():
                raise UserError(f"{path} is no folder: name the one that holds your runs, as `saelight serve runs`")

    def folders(self) -> dict[str, Path]:
        """The runs and sweeps by key: the folder's name, after its root's where two have the same."""
        found = [(root, path) for root in self.paths for path in ([root] if _is_shown(root) else _inner(root))]
        found = [(root, path) for root, path in found if self.holds(path)]
        names = [path.name for _, path in found]
        return {path.name if names.count(path.name) == 1 else f"{root.name}/{path.name}": path for root, path in found}

    def find(self, key: str) -> Path:
        """The folder of a key. Raises `UserError` for one that is not shown."""
        folders = self.folders()
        if key not in folders:
            near = did_you_mean(key[:100], folders)
            raise UserError(f"no run {key[:100]!r} here{near or ': GET /api/folders lists those that are shown'}")
        return folders[key]

    def key(self, path: Path) -> str | None:
        """The key of a folder that is shown."""
        return next((key for key, shown in self.folders().items() if shown == path), None)

    def holds(self, path: Path) -> bool:
        """Whether a path, wherever its links lead, is in one of the roots."""
        real = Path(os.path.realpath(path))
        return any(real == root or root in real.parents for root in self.paths)

    def strays(self) -> list[str]:
        """What is not shown, as it leads out of the roots: a sentence each."""
        outside = [path for root in self.paths if not _is_shown(root) for path in _inner(root) if not self.holds(path)]
        return [
            f"{path} leads to {os.path.realpath(path)}, outside what is served: name that folder too" for path in outside
        ]

    def refuse_links_out(self, folder: Path) -> None:
        """Raise `UserError` when a link in a run's folder leads out of the roots."""
        for path in links(folder, _DEEPEST):
            if not self.holds(path):
                raise UserError(
                    f"{path} is a link that leads out of what is served: put the file in its place, or remove it"
                )


def links(folder: Path, deepest: int) -> list[Path]:
    """The symbolic links in a folder and in those so far below it."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.append(Path(entry.path))
                elif deepest and entry.is_dir(follow_symlinks=False):
                    found += links(Path(entry.path), deepest - 1)
    except OSError:
        pass  # it has just been replaced, or may not be looked into: then nothing of it is shown either
    return found


def _inner(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if _is_shown(path))
    except OSError:
        return []


def _is_shown(path: Path) -> bool:
    return path.is_dir() and ((path / "index.json").is_file() or run_saes.is_run(path))
