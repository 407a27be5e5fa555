"""A place on a hub: `hf://user/repo`, `hf://user/repo@revision/path/to/sae`, or a page's address. Nothing is asked."""

import os
import re
from types import ModuleType
from typing import NamedTuple

from saelight.errors import UserError

SCHEME = "hf://"
_NAME = re.compile(r"hf:/+")
"""A path made of such a name has lost a slash."""
_PAGE = re.compile(r"https?://")


class HubPlace(NamedTuple):
    """A repository, or a folder or a file in it."""

    repo: str
    """`user/name`."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the repository's main branch."""
    path: str = ""
    """In the repository; empty for its root."""
    kind: str = "model"

    def __str__(self) -> str:
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        # Pull requests have a slash, and huggingface_hub reads it; of another's it would make a path.
        revision = self.revision and (self.revision if self.revision[:5] == "refs/" else self.revision.replace("/", "%2F"))
        return f"{SCHEME}{kind}{self.repo}{f'@{revision}' if revision else ''}{f'/{self.path}' if self.path else ''}"

    @property
    def name(self) -> str:
        """The last part: what a folder of it would be called."""
        return (self.path or self.repo).rpartition("/")[2]


def is_on_a_hub(path: str | os.PathLike[str]) -> bool:
    """Whether a path is meant as one on a hub."""
    return bool(_NAME.match(os.fspath(path)) or _PAGE.match(os.fspath(path)))


def place_of(name: str | os.PathLike[str]) -> HubPlace:
    """The place that a name means. Raises `UserError` for one that means none, or where huggingface_hub is missing."""
    text = os.fspath(name)
    if match := _NAME.match(text):
        text = SCHEME + text[match.end() :]
    if SCHEME in text[1:] or not text.isprintable():
        raise UserError(f"{text!r} is no place on a hub: write hf://user/repo/path")
    hub = import_hub()
    try:
        uri = hub.parse_hf_uri(text.rstrip("/"), endpoint=os.environ.get("HF_ENDPOINT"))
    except ValueError:
        raise UserError(
            f"{text} is no place on a hub: write hf://user/repo, hf://user/repo/path or hf://user/repo@revision/path"
        ) from None
    if uri.is_bucket or ".." in uri.path_in_repo.split("/"):
        raise UserError(f"{text} is no place in a repository: write hf://user/repo/path")
    return HubPlace(uri.id, uri.revision, uri.path_in_repo, uri.type)


def repository(name: str) -> HubPlace:
    """The place to share to: `user/repo` or `user/repo/path`, also with hf:// before it. Raises `UserError`."""
    return place_of(name if is_on_a_hub(name) else SCHEME + name)


def import_hub() -> ModuleType:
    """huggingface_hub, or a `UserError` that says how to get it."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("what is on a hub needs huggingface_hub: pip install 'saelight[hub]'") from None
    return huggingface_hub
