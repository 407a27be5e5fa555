"""The files that an SAE is made of, by names alone: of a repository that is not here, and of what is to be shared."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from saelight.convert.format import Format, Layout

ROOT = PurePosixPath("")


class NamedFiles:
    """A folder's files, known by their paths in it; itself is `ROOT`. A `formats.Tree`."""

    def __init__(self, files: Collection[str]) -> None:
        self._files = {PurePosixPath(file) for file in files}
        self._children: dict[PurePosixPath, set[PurePosixPath]] = defaultdict(set)
        for file in self._files:
            for child in (file, *file.parents[:-1]):
                self._children[child.parent].add(child)

    def __contains__(self, path: PurePosixPath) -> bool:
        return path in self._files or path in self._children

    def is_one(self, format: Format, path: PurePosixPath) -> bool:
        return bool(self.files_of(format, path))

    def files(self, path: PurePosixPath, pattern: str) -> list[PurePosixPath]:
        return [child for child in self._sorted(path) if child in self._files and fnmatchcase(child.name, pattern)]

    def folders(self, path: PurePosixPath) -> list[PurePosixPath]:
        return [child for child in self._sorted(path) if child in self._children]

    def files_of(self, format: Format, path: PurePosixPath) -> list[str]:
        """Those that the SAE of a format at `path` is made of; none where it is none."""
        return next((files for layout in format.layouts if (files := self._files_in(layout, path))), [])

    def _files_in(self, layout: Layout, path: PurePosixPath) -> list[str]:
        folder, star = path, ""
        if layout.is_file:
            pattern = re.escape(layout.needs[0]).replace(r"\*", "(.*)")
            if path not in self._files or not (match := re.fullmatch(pattern, path.name)):
                return []
            folder, star = path.parent, "".join(match.groups())
        needs, also = (
            [posixpath.normpath(folder / name.replace("*", star)) for name in names] for names in (layout.needs, layout.also)
        )
        if not all(PurePosixPath(file) in self._files for file in needs):
            return []
        return needs + [file for file in also if PurePosixPath(file) in self._files]

    def _sorted(self, path: PurePosixPath) -> list[PurePosixPath]:
        return sorted(self._children.get(path, ()))
