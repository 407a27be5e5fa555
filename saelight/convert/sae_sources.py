"""Where SAEs come from: a path on this machine, or one on a hub, of which no more is downloaded than they are made of."""

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from saelight.convert import formats
from saelight.convert.format import Format
from saelight.convert.formats import Found
from saelight.convert.layouts import ROOT, NamedFiles
from saelight.errors import UserError, did_you_mean
from saelight.hub.hub_place import HubPlace, is_on_a_hub, place_of
from saelight.hub.snapshots import Snapshot, download, snapshot

_MOST_SHOWN = 8


class Source(NamedTuple):
    """What is at a path."""

    saes: dict[str, Found]
    """By name."""
    is_one: bool
    """Whether the path is one SAE itself, and not a folder that holds some."""


def the_one_at(path: str | os.PathLike[str], format: str | None = None) -> Found:
    """The SAE at a path, or the only one that the folder there holds.

    Args:
        format: Its format. Default: found out.

    Raises:
        UserError: where there is none, or more than one, or the hub does not give it.
    """
    if is_on_a_hub(path):
        return _TheHubs(place_of(path), format).only()
    local = _local(path)
    if (one := formats.at(local, format)) is not None:
        return one
    found = formats.inside(local, format)
    if len(found) == 1:
        return next(iter(found.values()))
    raise _several(path, found) if found else formats.none_at(local, format)


def all_at(path: str | os.PathLike[str], format: str | None = None, leave_out: Collection[str] = ()) -> Source:
    """The SAE at a path, or all that the folder there holds.

    Args:
        format: Their format. Default: found out.
        leave_out: Names of those that are not wanted.

    Raises:
        UserError: where there is none, or none of a name to leave out, or the hub does not give them.
    """
    if is_on_a_hub(path):
        hub = _TheHubs(place_of(path), format)
        return Source(hub.fetched(_without(path, hub.found, leave_out)), hub.is_one)
    local = _local(path)
    one = formats.at(local, format)
    found = {os.path.basename(os.path.abspath(local)): one} if one else formats.inside(local, format)
    if not found:
        raise formats.none_at(local, format)
    return Source({name: found[name] for name in _without(path, found, leave_out)}, one is not None)


class _TheHubs:
    """The SAEs at a place on a hub. Raises `UserError` where there are none.

    Args:
        place: The place.
        format: Their format. Default: found out.
    """

    def __init__(self, place: HubPlace, format: str | None) -> None:
        self._asked, self._format = place, format
        self._snapshot: Snapshot = snapshot(place)
        self._tree = NamedFiles(self._snapshot.files)
        path = PurePosixPath(place.path)
        if place.path and path not in self._tree:
            raise UserError(f"{place}: there is no such file or folder in {place.repo}{self._shown()}")
        kind = next((kind for kind in formats.asked(format) if self._tree.is_one(kind, path)), None)
        self.is_one = kind is not None
        self.found: dict[str, tuple[Format, PurePosixPath]] = (
            {place.name: (kind, path)} if kind else formats.inside_tree(self._tree, path, format)
        )
        if not self.found:
            what = format or f"a known format; those read are {', '.join(formats.FORMATS)}"
            raise UserError(f"{place} holds no trained SAE of {what}{self._shown(path)}")

    def only(self) -> Found:
        if len(self.found) > 1:
            raise _several(self._asked, self.found)
        return next(iter(self.fetched(self.found).values()))

    def fetched(self, names: Collection[str]) -> dict[str, Found]:
        """Those of these names, downloaded."""
        files = {file for name in names for file in self._tree.files_of(*self.found[name])}
        root = download(self._snapshot, files)
        return {name: self._here(root, self.found[name][1]) for name in names}

    def _here(self, root: Path, path: PurePosixPath) -> Found:
        if (here := formats.at(root / path, self._format)) is None:
            raise formats.none_at(root / path, self._format)
        place = self._asked._replace(revision=self._snapshot.commit, path="" if path == ROOT else str(path))
        return here._replace(place=place)

    def _shown(self, path: PurePosixPath = ROOT) -> str:
        """The folders at a place, for a message."""
        folders = [folder.name for folder in self._tree.folders(path)]
        if not folders:
            return ": it has no folders" if path == ROOT else ""
        near = did_you_mean(self._asked.name, folders)
        return f"; folders there: {', '.join(folders[:_MOST_SHOWN])}{', …' if len(folders) > _MOST_SHOWN else ''}{near}"


def _local(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):
        raise UserError("'' holds no trained SAE: name a folder")
    return Path(path)


def _several(path: str | os.PathLike[str] | HubPlace, names: Collection[str]) -> UserError:
    shown = f"{', '.join([*names][:3])}{', …' if len(names) > 3 else ''}"
    return UserError(f"{path} holds no trained SAE itself, but {len(names)} inside ({shown}): give the path of one")


def _without(path: str | os.PathLike[str], found: Collection[str], leave_out: Collection[str]) -> list[str]:
    """The names of those found that are not left out. Raises `UserError`."""
    if unknown := [name for name in leave_out if name not in found]:
        raise UserError(f"{path} holds no SAE {unknown[0]!r} to leave out{did_you_mean(unknown[0], found)}")
    if not (kept := [name for name in found if name not in leave_out]):
        raise UserError(f"{path} holds no other SAE than those left out")
    return kept
