"""A file of text as one document."""

from collections.abc import Iterator
from pathlib import Path

from saelight.data.harvest.cells import Content
from saelight.data.harvest.unpacked import unpacked
from saelight.errors import UserError


class PlainText:
    """The text of the file at `path`; None where it is no UTF-8 text or cannot be read. An empty one is no document."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Content | None]:
        try:
            with unpacked(self.path) as file:
                text = file.read().decode("utf-8-sig")
        except (UnicodeDecodeError, UserError):
            text = "\0"
        if "\0" in text:
            yield None
        elif text.strip():
            yield text
