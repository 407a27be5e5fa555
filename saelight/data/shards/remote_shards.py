"""Opening shards at a URL: every file's size and header, many at a time."""

import io
from collections.abc import Sequence
from functools import partial

from saelight.bars import bar
from saelight.data.remote.range_cache import RangeCache
from saelight.data.remote.remote_files import OpenedFile, RemoteFiles
from saelight.data.remote.remote_store import Stamp, Store, store_of
from saelight.data.remote.remote_url import Url
from saelight.data.shards.header import MAX_BYTES, Header, parse_header
from saelight.data.shards.metadata import Entry

_HEAD = 4096
"""Bytes that hold the header of any shard of saelight's."""
_AT_ONCE = 1024


def open_remote(folder: Url, entries: Sequence[Entry], cache: RangeCache | None) -> tuple[list[Header], RemoteFiles]:
    """The headers of a folder's shards, and a reader of their bytes.

    Raises `UserError` when a file is missing or may not be read, or a header is damaged.
    """
    store, urls = store_of(folder), [folder / entry["file"] for entry in entries]
    stamps = store.stamps(folder, [entry["file"] for entry in entries])
    headers: list[Header] = []
    with bar(total=len(urls), unit=" shards", desc="open", delay=2) as progress:
        for first in range(0, len(urls), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            asked = [
                (partial(_header, store, url, stamp, entry), url)
                for url, stamp, entry in zip(urls[some], stamps[some], entries[some], strict=True)
            ]
            headers += store.all(asked)
            progress.update(len(asked))
    opened = {url: OpenedFile(stamp, entry["sha256"]) for url, stamp, entry in zip(urls, stamps, entries, strict=True)}
    return headers, RemoteFiles(folder, opened, cache)


async def _header(store: Store, url: Url, stamp: Stamp, entry: Entry) -> Header:
    # Of a server that does not say how long a file is, what the metadata say is found out when its end is read.
    size = entry["bytes"] if stamp.size is None else stamp.size
    head = await store.get(url, 0, min(_HEAD, size)) if size else b""
    whole = min(8 + int.from_bytes(head[:8], "little"), size)
    if len(head) < whole <= 8 + MAX_BYTES:
        head = await store.get(url, 0, whole)
    return parse_header(url, size, io.BytesIO(head).read)
