"""JSON lines: a row a line, one of whose values is a document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saelight.data.harvest.cells import Content, chosen_column, content
from saelight.data.harvest.unpacked import unpacked
from saelight.errors import UserError, one_line

SUFFIXES = (".jsonl", ".ndjson")
WITH_A_COLUMN = (".json",)
"""Read so only where a column is named: one JSON value may fill such a file."""


class JsonLines:
    """The documents in a column of the file at `path`. Making one reads its first line.

    Raises `UserError` naming the line that is no JSON object, or lacks the column.
    """

    def __init__(self, path: Path, column: str | None) -> None:
        self.path = path
        first = next(self._rows(), None)
        if first is None:
            raise UserError(f"{path} is empty; leave it out of `files`, or write it again")
        number, row = first
        self.column = chosen_column(column, row, f"{path}, line {number},")

    def __iter__(self) -> Iterator[Content]:
        for number, row in self._rows():
            if self.column not in row:
                chosen_column(self.column, row, f"{self.path}, line {number},")
            if (document := content(row[self.column], self.column, f"{self.path}, line {number}")) is not None:
                yield document

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each line's number, from 1 on, and what it holds; blank lines are passed over."""
        with unpacked(self.path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
                except (ValueError, RecursionError) as error:
                    what = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
                    raise UserError(
                        f"{self.path}, line {number}, is damaged, or no JSON ({what}); mend it, or remove it"
                    ) from None
                if not isinstance(row, dict):
                    raise UserError(
                        f"{self.path}, line {number}, holds {type(row).__name__}, no object; write each document as "
                        '{"text": …}'
                    )
                yield number, row
