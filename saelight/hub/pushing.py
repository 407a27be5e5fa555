"""A push: SAEs of a run to a repository on a hub, their card and the picture of their front, in one commit."""

import os
import posixpath
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saelight.bars import bar
from saelight.convert import formats
from saelight.convert.layouts import ROOT, NamedFiles
from saelight.errors import UserError
from saelight.files import check_path
from saelight.hub.hub_client import asking, client, endpoint
from saelight.hub.hub_place import HubPlace, is_on_a_hub, repository
from saelight.hub.model_card import CARD, FRONT, card, is_as_written
from saelight.hub.shared_saes import Shared, SharedSAE, shared_saes
from saelight.version import version

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import ModelInfo

_AT_ONCE = 4  # files between two steps of the bar
_LONG = 2**26  # bytes, of which an upload is not done in a moment


class Pushed(NamedTuple):
    """What a push has come to."""

    place: HubPlace
    """Its revision the commit."""
    saes: list[str]
    """Where they can be loaded from, e.g. `hf://user/repo/topk-4`."""
    url: str
    private: bool
    is_new: bool
    """Whether there was anything that was not there before."""
    notes: list[str]
    """What the user has to know."""


def push(
    folder: str | os.PathLike[str],
    repo: str,
    to: str | None = None,
    *,
    public: bool = False,
    leave_out: Collection[str] = (),
    new_card: bool = False,
) -> Pushed:
    """Share an SAE, or all of a run or a sweep, on a hub (docs/share.md).

    Large files are uploaded first and are in no commit until one at the end names them all: nobody sees a part, and a push
    that was cut off and is repeated uploads what is missing.

    Args:
        folder: The SAE's, the run's or the sweep's.
        repo: `user/repo`, made where it is not there, or `user/repo/path`; `user/repo@branch` for another branch than main.
        to: A format to convert into, e.g. `sae_lens`. Default: as they are.
        public: Whether everybody may see it; a repository that is there stays as it is.
        leave_out: Names of SAEs that are not shared.
        new_card: Replace a card that somebody has changed.

    Raises:
        UserError: for an SAE that cannot be shared so, and for what the hub refuses: then nothing can be seen there.
    """
    place = repository(repo)
    if place.kind != "model":
        raise UserError(f"{repo} is a {place.kind}'s repository: SAEs are shared in those of models, user/repo")
    check_path(folder, "the folder to share")
    if is_on_a_hub(folder):
        raise UserError(f"{folder} is on a hub already: give a folder of this machine")
    with asking(place, to_write=True):
        api = client()
    before = _info(api, place, public)
    with shared_saes(Path(folder), place, to, leave_out) as shared:
        with asking(place, to_write=True):
            if before is None:
                api.create_repo(place.repo, private=not public)
            head = api.repo_info(place.repo, revision=place.revision)
            there = api.list_repo_files(place.repo, revision=head.sha)
        images, notes = _front([sae for sae in shared.saes if sae.row is not None])
        text, kept = _card(place, head.sha, shared, there, bool(images), new_card)
        contents: dict[str, Path | bytes] = {**shared.files}
        contents |= {posixpath.join(place.path, name): data for name, data in (images | text).items()}
        with asking(place, to_write=True):
            commit = _upload(api, place, contents, f"Add {_count(shared)} by saelight {version()}")
    if before is not None and public and before.private:
        notes.append(f"{place.repo} was private and stays so: {endpoint()}/{place.repo}/settings makes it public")
    return Pushed(
        place=place._replace(revision=commit),
        saes=[str(place._replace(path=sae.path)) for sae in shared.saes],
        url=f"{endpoint()}/{place.repo}",
        private=bool(head.private),
        is_new=commit != head.sha,
        notes=[*shared.notes, *shared.left, *notes, *kept],
    )


def _info(api: "HfApi", place: HubPlace, public: bool) -> "ModelInfo | None":
    """The repository as it is, None where there is none. Raises `UserError` where it is not as the push wants it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with asking(place, to_write=True):
        try:
            info = api.model_info(place.repo)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            info = None
    if info is None and place.revision not in (None, "main"):
        raise UserError(f"there is no repository {place.repo} yet, and so no {place.revision}: push to {place.repo} first")
    if info is not None and not info.private and not public:
        raise UserError(f"{place.repo} is public, and so is what is pushed to it: --public says that this is meant")
    return info


def _front(saes: Sequence[SharedSAE]) -> tuple[dict[str, bytes], list[str]]:
    """The picture of the front by its file's name, where there is one to draw; and what to say where it could not be."""
    rows = [sae.row for sae in saes if sae.row is not None]
    if len(rows) < 2:
        return {}, []
    try:
        from saelight.sweep.show.figures import FIGURES, NothingToDraw, png
    except ImportError:
        return {}, ["the card has no picture of the front: pip install 'saelight[plot]', and push again"]
    try:
        return {FRONT: png(FIGURES["pareto"](rows))}, []
    except NothingToDraw:
        return {}, []


def _card(
    place: HubPlace, head: str | None, shared: Shared, there: Collection[str], has_front: bool, anew: bool
) -> tuple[dict[str, bytes], list[str]]:
    """The card by its file's name, unless somebody has written in the one that is there; and what to say then.

    Args:
        head: The commit that is there now.
        there: Its files.
    """
    from huggingface_hub import hf_hub_download

    path = posixpath.join(place.path, CARD)
    if path in there and not anew:
        with asking(place):
            old = hf_hub_download(place.repo, path, revision=head, endpoint=endpoint(), library_name="saelight")
        if not is_as_written(Path(old).read_text(encoding="utf-8", errors="replace")):
            return {}, [f"{path} there is not as saelight wrote it, and stays: --new-card replaces it"]
    mine = {sae.path for sae in shared.saes}
    found = formats.inside_tree(NamedFiles(there), ROOT).values()
    others = {str(at) for _, at in found if str(at) not in mine and str(at.parent) not in mine}
    return {CARD: card(shared, place, has_front, others).encode()}, []


def _upload(api: "HfApi", place: HubPlace, contents: dict[str, Path | bytes], message: str) -> str:
    """Upload the files and name them in a commit, the old one where nothing is new; its name."""
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path, content) for path, content in sorted(contents.items())]
    total = sum(operation.upload_info.size for operation in operations)
    with bar(total=total, unit="B", desc="upload", delay=0 if total > _LONG else 2) as progress:
        for some in _in_parts(operations):
            api.preupload_lfs_files(place.repo, some, revision=place.revision, free_memory=False)
            progress.update(sum(operation.upload_info.size for operation in some))
    return api.create_commit(place.repo, operations, commit_message=message, revision=place.revision).oid


def _in_parts(operations: Iterable["CommitOperationAdd"]) -> Iterable[list["CommitOperationAdd"]]:
    left = iter(operations)
    while some := [*islice(left, _AT_ONCE)]:
        yield some


def _count(shared: Shared) -> str:
    return f"{len(shared.saes)} SAEs" if len(shared.saes) > 1 else "an SAE"
