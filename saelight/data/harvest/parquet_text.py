"""Documents in a column of a Parquet file, a row each."""

from collections.abc import Iterator
from pathlib import Path

from saelight.data.foreign import arrow
from saelight.data.foreign.parquet_file import unreadable
from saelight.data.harvest.cells import Content, chosen_column, content
from saelight.data.shards.disk import reading
from saelight.errors import UserError

_ROWS = 256  # decoded at once


class ParquetText:
    """The documents in a column of the file at `path`. Making one reads its schema.

    Raises `UserError` when the file is damaged or cut off, or lacks the column.
    """

    def __init__(self, path: Path, column: str | None) -> None:
        self.path, self._parquet = path, arrow.pyarrow(path, "pyarrow.parquet")
        with reading(path):
            pass  # what is no file, or may not be read, is said as everywhere
        try:
            with self._parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
        except arrow.damage() as error:
            raise unreadable(self.path, error) from None
        self.column = chosen_column(column, schema.names, path)
        kind, pa = schema.field(self.column).type, arrow.pyarrow(path)
        # A column of categories holds its texts once.
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        inner, levels = arrow.value_type(kind)
        text = levels == 0 and (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
        if not text and not (levels == 1 and pa.types.is_integer(inner)):
            raise UserError(f"{path}: column {self.column!r} holds {kind}; a document is a text or a list of token ids")

    def __iter__(self) -> Iterator[Content]:
        row = 0
        try:
            with self._parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_ROWS, columns=[self.column]):
                    for value in batch.column(0).to_pylist():
                        if (document := content(value, self.column, f"{self.path}, row {row}")) is not None:
                            yield document
                        row += 1
        except arrow.damage() as error:
            raise unreadable(self.path, error) from None
