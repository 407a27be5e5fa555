"""What a model reads, as documents in a fixed order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from saelight.data.harvest.documents import Documents, find


@dataclass(eq=False)
class TextSettings:
    """What the model reads. `Corpus` gives its documents."""

    files: list[str]
    """Glob patterns of UTF-8 text files (`**` goes through folders); a file is a document. `{stdlib}` is the folder of
    Python's standard library, `{package:NAME}` that of an installed package."""
    exclude: list[str] | None = field(default=None, kw_only=True)
    """Patterns of files to leave out, matched against the whole path (`*` matches / too)."""
    seed: int = field(default=0, kw_only=True)
    """Seed of the order of files."""


class Document(NamedTuple):
    """A document and its place."""

    id: int
    content: str | list[int]


class Corpus:
    """The documents of what `settings.files` names, always in the same order, read as they are asked for."""

    def __init__(self, settings: TextSettings) -> None:
        self._texts = Documents(find(settings.files, settings.exclude or [], settings.seed))

    def __iter__(self) -> Iterator[Document]:
        """The documents, numbered as they come."""
        for number, content in enumerate(self._texts):
            yield Document(number, content)
