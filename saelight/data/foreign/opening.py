"""What is at a path, opened: shards, or activations in one of the other layouts."""

from pathlib import Path

from saelight.data.remote.range_cache import RangeCache
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.metadata import is_shards
from saelight.data.shards.reader import ShardedRows
from saelight.data.stored_rows import StoredRows


def open_rows(path: str | Path | Url, cache: RangeCache | None = None) -> StoredRows:
    """The rows at `path`: shards on a disk or at a URL, or another layout, whose path may name a tensor and a layer in it
    (`layout.Address`). What is read from a URL may be kept in a cache.

    Raises `UserError` when there are none, they are damaged, or they have to be converted first.
    """
    place = located(path)
    if isinstance(place, Url):
        return ShardedRows(place, cache)
    if is_shards(place):
        return ShardedRows(place)
    # Own shards need none of the readers of other layouts.
    from saelight.data.foreign.finding import find
    from saelight.data.foreign.foreign_rows import ForeignRows

    found = find(place)
    return ShardedRows(place) if found is None else ForeignRows(*found)
