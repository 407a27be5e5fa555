"""A harvest that is one part of several, each in a process of its own: what text it takes, where it goes on after a kill."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelight.data.remote.remote_url import Url
from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.data.harvest.corpus import Corpus, Document
    from saelight.data.row_filter import Piece, RowFilter
    from saelight.data.shards.writer import ShardWriter


class HarvestPart:
    """Part `text` (`3/16`) of a harvest into `folders` (by hook).

    Its share of the documents follows that of the part before, so that the parts' shards are in the documents' order, one
    after the other. Its norm limits are taken from its own first rows.

    A position is `{"windows", "filter"}`: how many windows the model has seen, and the filter's state then.

    Raises:
        UserError: No such part, or its notes are damaged.
    """

    def __init__(self, text: str, folders: dict[str, Path | Url]) -> None:
        from saelight.data.shards.folder_part import Part, SharedFolder

        self.part, self._folders = Part.parsed(text), folders
        notes = {hook: SharedFolder(folder).note(self.part) for hook, folder in folders.items()}
        self.done = all(note is not None and note["done"] for note in notes.values())
        """Whether there is nothing left to harvest."""
        positions = [(note and note["position"]) or {"windows": 0, "filter": None} for note in notes.values()]
        # A hook of narrow rows has fewer whole shards: the model sees again what the last of them lacks.
        self._position = min(positions, key=lambda position: position["windows"])
        self.first_document = 0
        """The number of its first document, once they are shared out."""
        self.skipped = 0
        """Files that could not be read, of all parts together, in the account of the first."""
        self._coming: deque[dict[str, Any]] = deque()
        self._current: dict[str, Any] = self._position

    @property
    def windows(self) -> int:
        """Windows that need not be seen again."""
        return self._position["windows"]

    def share(self, corpus: "Corpus") -> Iterator["Document"]:
        """This part's documents. The whole corpus is read once more, to count them: files hold as many as they hold.

        Raises:
            UserError: There are fewer documents than parts.
        """
        n = sum(1 for _ in corpus)
        if n < self.part.of:
            raise UserError(f"{self.part.of} parts of {n} documents: take at most as many parts as documents")
        first, stop = (self.part._replace(number=number).first(n) for number in (self.part.number, self.part.number + 1))
        self.first_document, self.skipped = first, corpus.skipped if self.part.number == 1 else 0
        return itertools.islice(corpus, first, stop)

    def rows(self, most: int | None) -> int | None:
        """How many of `most` rows are this part's."""
        return None if most is None else len(self.part.share(range(most)))

    def resume(self, row_filter: "RowFilter") -> None:
        """Set the filter to where this part goes on."""
        if self._position["filter"] is not None:
            row_filter.load_state(self._position["filter"])

    def followed(self, groups: Iterator[list], row_filter: "RowFilter") -> Iterator[list]:
        """The groups of windows, noting where each begins."""
        seen = self.windows
        for group in groups:
            state = row_filter.state()
            # Until the limits are known rows wait for them; a part that is killed then begins anew.
            self._coming.append({"windows": 0, "filter": None} if state is None else {"windows": seen, "filter": state})
            yield group
            seen += len(group)

    def writer(self, folder: Path | Url, **settings: Any) -> "ShardWriter":
        """A writer of this part's rows, told where they go on."""
        from saelight.data.shards.part_writer import PartWriter

        writer = PartWriter(folder, self.part, **settings)
        writer.position = self._current
        writer.first_row = 0 if self._position["filter"] is None else self._position["filter"]["passed"]
        return writer

    def passing(self, pieces: Iterator["Piece"], writers: "Mapping[str, ShardWriter]") -> Iterator["Piece"]:
        """The filter's pieces, their places told to the writers, which note them with their shards."""
        for piece in pieces:
            self._current = self._coming.popleft()
            for writer in writers.values():
                writer.position = self._current
            yield piece

    def without_text(self) -> str:
        """Note that this part's documents hold no text; what `merged` says then."""
        from saelight.data.shards.folder_part import SharedFolder, empty_note

        for folder in map(SharedFolder, self._folders.values()):
            folder.make()
            folder.write_note(self.part, empty_note(self.part))
        return self.merged()

    def merged(self) -> str:
        """Make the folders whole if this was the last part; what was made, or what is yet missing, in a line for each."""
        from saelight.data.shards.folder_part import SharedFolder
        from saelight.data.shards.merging import merge_one, missing

        lines = []
        for folder in self._folders.values():
            waiting = missing(SharedFolder(folder).notes())
            lines.append(f"part {self.part} of {folder} is done; {waiting}" if waiting else merge_one(folder))
        return "\n".join(lines)
