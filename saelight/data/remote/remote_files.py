"""Ranges of files at URLs, read in the order in which they were announced, each file still the one that was opened."""

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from saelight.data.remote.patience import is_short
from saelight.data.remote.range_cache import RangeCache
from saelight.data.remote.remote_store import IN_FLIGHT, Stamp, Store, result, store_of
from saelight.data.remote.remote_url import Url
from saelight.errors import UserError

AHEAD_BYTES = 256 << 20
"""What has been read, or is being read, before it is asked for: at most, by each thread."""
_LOOK_AGAIN = 60.0
"""Seconds after which a file that is read is asked whether it is still the same."""


class Range(NamedTuple):
    """Bytes [start, start + length) of a file."""

    url: Url
    start: int
    length: int


class OpenedFile(NamedTuple):
    """What was known of a file when it was opened."""

    stamp: Stamp
    content: str
    """Its checksum: what it is called in the cache."""


class RemoteFiles:
    """Reads bytes of files at their offsets, from any thread: what `OpenFiles` is on a disk.

    Args:
        folder: That the files are in.
        files: What they were when they were opened.
        cache: Where ranges are kept between runs. None: nowhere.
    """

    def __init__(self, folder: Url, files: Mapping[Url, OpenedFile], cache: RangeCache | None) -> None:
        self._folder, self._opened, self._cache = folder, files, cache
        self._looked = dict.fromkeys(files, time.monotonic())
        self._threads = threading.local()

    def read(self, path: Url, size: int, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes of `path` from `offset` on. Raises `UserError` when the file is no longer the one that
        was opened, or cannot be read."""
        if len(out):
            out[:] = result(self._ahead.take(Range(path, offset, len(out))))

    def will_need(self, path: Url, size: int, offset: int, length: int) -> None:
        """Announce a range: it will be the next that this thread reads, after those announced before."""
        if length:
            self._ahead.announce(Range(path, offset, length))

    def stamp(self, path: Url) -> str:
        """Size and mark when the file was opened."""
        return str(self._opened[path].stamp)

    @property
    def _ahead(self) -> "_ReadAhead":
        # Each thread's own, which goes with it: what a stopped reader announced is in nobody's way.
        if not hasattr(self._threads, "ahead"):
            self._threads.ahead = _ReadAhead(self._start)
        return self._threads.ahead

    def _start(self, wanted: Range) -> "concurrent.futures.Future[bytes]":
        store = store_of(self._folder)
        return store.start(partial(self._fetch, store, wanted), wanted.url, wanted.length)

    async def _fetch(self, store: Store, wanted: Range) -> bytes:
        url, start, length = wanted
        content = self._opened[url].content
        if self._cache is not None and (kept := await self._cache.get(content, start, length)) is not None:
            return kept
        try:
            data = await store.get(url, start, start + length)
        except Exception as error:
            if is_short(error):
                await self._check_unchanged(store, url)
            raise
        if time.monotonic() - self._looked[url] > _LOOK_AGAIN:
            await self._check_unchanged(store, url)
        if self._cache is not None:
            await self._cache.put(content, start, data)
        return data

    async def _check_unchanged(self, store: Store, url: Url) -> None:
        then, now = self._opened[url].stamp, await store.stamp(url)
        if now != then:
            size = f"had {then.size} bytes and now has {now.size}" if now.size != then.size else "is another file now"
            raise UserError(f"{url} changed while it was read: it {size}; start again when it is whole")
        self._looked[url] = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_threads"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._threads = threading.local()


class _ReadAhead:
    """The ranges that one thread will read, in order: some requests are on their way before it comes to them."""

    def __init__(self, start: Any) -> None:
        self._start = start
        self._announced: deque[Range] = deque()
        self._running: dict[Range, concurrent.futures.Future[bytes]] = {}
        self._bytes = 0

    def announce(self, wanted: Range) -> None:
        self._announced.append(wanted)
        self._fill()

    def take(self, wanted: Range) -> "concurrent.futures.Future[bytes]":
        """The request for a range. What was announced before it and not read is forgotten."""
        if wanted not in self._running:
            if wanted not in self._announced:
                return self._start(wanted)
            self._forget_running()
            while self._announced[0] != wanted:
                self._announced.popleft()
            self._fill()
        future = self._running[wanted]
        while (first := next(iter(self._running))) != wanted:
            self._drop(first)
        self._drop(wanted, keep=True)
        self._fill()
        return future

    def _fill(self) -> None:
        while self._announced and len(self._running) < IN_FLIGHT:
            wanted = self._announced[0]
            if wanted in self._running or (self._running and self._bytes + wanted.length > AHEAD_BYTES):
                return
            self._announced.popleft()
            self._running[wanted] = self._start(wanted)
            self._bytes += wanted.length

    def _forget_running(self) -> None:
        for wanted in [*self._running]:
            self._drop(wanted)

    def _drop(self, wanted: Range, keep: bool = False) -> None:
        future = self._running.pop(wanted)
        self._bytes -= wanted.length
        if not keep:
            future.cancel()

    def __del__(self) -> None:
        for future in self._running.values():
            future.cancel()
