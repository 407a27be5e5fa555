"""Files of a repository: which there are, and those that are wanted, in huggingface_hub's cache.

One commit is asked for its files once, and a file that is there is not fetched again; without a network what is in the cache
is given, where it is all that was asked for.
"""

import glob
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from tqdm.asyncio import tqdm_asyncio

from saelight.bars import settings
from saelight.hub.hub_client import asking, client, endpoint
from saelight.hub.hub_place import HubPlace

_PATIENCE = 2  # seconds


class Snapshot(NamedTuple):
    """A repository at one commit."""

    place: HubPlace
    """As it was asked for."""
    commit: str
    files: list[str]
    """Paths in the repository."""


class _Bar(tqdm_asyncio):
    """Of huggingface_hub's bars the one that counts bytes on the disk, as saelight shows its own: under one name, of what
    takes longer than two seconds."""

    # huggingface_hub leaves its bars open: tqdm's thread would write of them later, wherever stderr then leads.
    monitor_interval = 0
    _instances: ClassVar[WeakSet["_Bar"]] = WeakSet()

    def __init__(self, *args: Any, **given: Any) -> None:
        self._begun = time.monotonic()
        others = given.get("unit") != "B" or str(given.get("desc")).startswith("Downloading")
        kept = {key: value for key, value in given.items() if key in ("total", "initial", "unit")}
        super().__init__(*args, **(settings() | kept | {"desc": "download", "delay": _PATIENCE, "disable": others}))

    @classmethod
    def close_all(cls) -> None:
        """Close those that are open."""
        for bar in [*cls._instances]:
            bar.close()

    def set_description(self, *args: Any, **kwargs: Any) -> None:
        pass

    def display(self, *args: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._begun >= _PATIENCE:
            super().display(*args, **kwargs)


def snapshot(place: HubPlace) -> Snapshot:
    """The repository as it is now, or as the cache has it where the hub cannot be reached. Raises `UserError`."""
    with asking(place):
        from huggingface_hub import errors, get_cached_repo_tree

        try:
            commit = client().resolve_revision(place.repo, repo_type=place.kind, revision=place.revision).resolved
        except errors.RevisionResolutionError as error:
            # What kept it from asking is the reason.
            raise error.__cause__ or error from None
        found = Snapshot(place, commit, [])
        try:
            known = get_cached_repo_tree(place.repo, repo_type=place.kind, revision=commit)
        except errors.CachedRepoTreeNotFoundError:
            # Files are listed with the first download, be it of none.
            download(found, [])
            known = get_cached_repo_tree(place.repo, repo_type=place.kind, revision=commit)
        return found._replace(files=[file.path for file in known])


def download(found: Snapshot, files: Collection[str]) -> Path:
    """Bring these files into the cache, all of them; the folder there that is the repository's root. Raises `UserError`."""
    from huggingface_hub import errors

    with asking(found.place):
        if files:
            try:
                return _copy(found, files, local_files_only=True)
            except errors.LocalEntryNotFoundError:
                # A hub that cannot be reached is known at once by this, and after half a minute by what comes now.
                client().repo_info(found.place.repo, repo_type=found.place.kind, revision=found.commit)
        return _copy(found, files)


def _copy(found: Snapshot, files: Collection[str], local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            found.place.repo,
            repo_type=found.place.kind,
            revision=found.commit,
            allow_patterns=[glob.escape(file) for file in files],
            local_files_only=local_files_only,
            endpoint=endpoint(),
            tqdm_class=_Bar,
            library_name="saelight",
        )
    finally:
        _Bar.close_all()
    return Path(folder)
