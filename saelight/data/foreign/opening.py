"""What is at a path, opened: shards, or activations in one of the other layouts."""

from pathlib import Path

from saelight.data.shards.metadata import is_shards
from saelight.data.shards.reader import ShardedRows
from saelight.data.stored_rows import StoredRows


def open_rows(path: str | Path) -> StoredRows:
    """The rows at `path`, which may name a tensor and a layer in it (`layout.Address`).

    Raises `UserError` when there are none, they are damaged, or they have to be converted first.
    """
    if is_shards(Path(path)):
        return ShardedRows(path)
    # Own shards need none of the readers of other layouts.
    from saelight.data.foreign.finding import find
    from saelight.data.foreign.foreign_rows import ForeignRows

    found = find(path)
    return ShardedRows(path) if found is None else ForeignRows(*found)
