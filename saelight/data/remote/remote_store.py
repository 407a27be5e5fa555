"""What is behind a URL: files, read and written by many requests at a time, each made again until it has succeeded.

Requests run on fsspec's own thread. They are awaited from others, which can be interrupted and asked to stop.
"""

import asyncio
import concurrent.futures
import contextlib
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from saelight.data.remote.patience import TooShort, Waiting
from saelight.data.remote.remote_url import Url
from saelight.data.stopping import check_wanted
from saelight.errors import UserError, did_you_mean

T = TypeVar("T")

IN_FLIGHT = 32
"""Requests at a time to one place."""
_SECONDS, _BYTES_PER_SECOND = 60.0, 100_000
"""A request is given up, and made again, after this long and a second more for so many bytes."""
_LOOK = 0.2
_TELL_EVERY = 60.0
"""Seconds between two words on a lost connection."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "harvest"}
"""Extras of ours that bring what a scheme needs."""
_CHANGES_WITH_CONTENT = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "mtime", "created")


class Stamp(NamedTuple):
    """What tells whether a file is still the same one."""

    size: int | None
    """Bytes; None where the server does not say."""
    mark: str
    """Its ETag, checksum or time, whichever is known first."""


class Store:
    """The files at one place: a bucket, or a host."""

    def __init__(self, root: Url) -> None:
        from fsspec.asyn import get_loop

        self._fs = _file_system(root)
        self._loop: asyncio.AbstractEventLoop = get_loop()
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self._reached, self._told = False, -math.inf

    # What can be asked, as coroutines: for use inside `start`.

    async def get(self, url: Url, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file."""
        data = await self._fs._cat_file(self._path(url), start=start, end=end)
        if len(data) > end - start:
            raise UserError(
                f"{url.parent} gives whole files where parts are asked for (no HTTP ranges); copy it to a disk, or serve it "
                "by another server"
            )
        if len(data) < end - start:
            raise TooShort(f"{len(data)} of {end - start} bytes came")
        return data

    async def stamp(self, url: Url) -> Stamp:
        """A file's size and mark now."""
        return _stamp(await self._fs._info(self._path(url)))

    # The same, waited for.

    def read(self, url: Url) -> bytes:
        """A whole file. Raises `UserError` when it cannot be had."""
        return result(self.start(lambda: self._fs._cat_file(self._path(url)), url))

    def has(self, url: Url) -> bool:
        """Whether there is a file."""

        async def look() -> bool:
            try:
                await self._fs._cat_file(self._path(url), start=0, end=1)
            except FileNotFoundError:
                return False
            return True

        return result(self.start(look, url))

    def names(self, folder: Url) -> list[str]:
        """The names of what lies in a folder; none where there is no such folder."""
        return sorted(self._listed(folder))

    def stamps(self, folder: Url, names: Sequence[str]) -> list[Stamp]:
        """The stamps of files in a folder: from its list where it has one, else from each. Raises `UserError` for one that
        is missing."""
        if folder.is_web:
            urls = [folder / name for name in names]
            return self.all((partial(self.stamp, url), url) for url in urls)
        listed = self._listed(folder)
        if missing := [name for name in names if name not in listed]:
            raise UserError(f"{missing[0]} is missing from {folder}; copy the folder whole, or harvest again")
        return [listed[name] for name in names]

    def write(self, url: Url, data: bytes) -> None:
        """Write a file: in several parts at a time where it is large and the place can; whole or not at all."""
        result(self.start(lambda: self._fs._pipe_file(self._path(url), data), url, len(data), "write"))

    def remove(self, url: Url) -> None:
        """Remove a file, if it is there."""

        async def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                await self._fs._rm_file(self._path(url))

        result(self.start(remove, url, 0, "remove"))

    def all(self, asked: Iterable[tuple[Callable[[], Awaitable[T]], Url]]) -> list[T]:
        """The results of many requests, in their order."""
        futures = [self.start(act, url) for act, url in asked]
        try:
            return [result(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def start(
        self, act: Callable[[], Awaitable[T]], url: Url, size: int = 0, doing: str = "read"
    ) -> "concurrent.futures.Future[T]":
        """Begin a request for `url` (`size` bytes, if they are many), which is made again while there is hope."""
        return asyncio.run_coroutine_threadsafe(self._persist(act, Waiting(url, doing), size), self._loop)

    async def _persist(self, act: Callable[[], Awaitable[T]], waiting: Waiting, size: int) -> T:
        while True:
            try:
                async with self._gate:
                    found = await asyncio.wait_for(_coroutine(act), _SECONDS + size / _BYTES_PER_SECOND)
            except Exception as error:
                wait = waiting.after(error, self._reached)
                if self._reached and waiting.long and time.monotonic() - self._told > _TELL_EVERY:
                    self._told = time.monotonic()
                    print(f"saelight: {waiting.note}", file=sys.stderr)
                await asyncio.sleep(wait)
            else:
                self._reached = True
                return found

    def _listed(self, folder: Url) -> dict[str, Stamp]:
        async def look() -> dict[str, Stamp]:
            try:
                found = await self._fs._ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {info["name"].rstrip("/").rpartition("/")[2]: _stamp(info) for info in found if info["type"] == "file"}

        return result(self.start(look, folder))

    def _path(self, url: Url) -> str:
        return self._fs._strip_protocol(url.full)


def store_of(url: Url) -> Store:
    """The store that `url` is in. Raises `UserError` when there is no way to ask it."""
    return _store(url.root)


def result(future: "concurrent.futures.Future[T]") -> T:
    """What a request gave. Raises what it raised; it is given up when the waiting thread is interrupted or no longer
    wanted."""
    try:
        while True:
            done, _ = concurrent.futures.wait([future], timeout=_LOOK)
            if done:
                return future.result()
            check_wanted()
    except BaseException:
        future.cancel()
        raise


@cache
def _store(root: str) -> Store:
    return Store(Url(root))


def _file_system(root: Url) -> Any:
    """fsspec's, with coroutines where it has none of its own."""
    import fsspec
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    if root.scheme not in fsspec.available_protocols():
        raise UserError(f"{root}: no scheme {root.scheme!r}{did_you_mean(root.scheme, fsspec.available_protocols())}")
    try:
        fs, _ = fsspec.url_to_fs(root.full, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(root.scheme)
        how = f"pip install 'saelight[{extra}]'" if extra else str(error)
        raise UserError(f"{root.scheme}:// needs a package that is not installed: {how}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"cannot open {root}: {error}; check the address") from None
    return fs if fs.async_impl else AsyncFileSystemWrapper(fs, asynchronous=False)


def _stamp(info: dict[str, Any]) -> Stamp:
    return Stamp(info.get("size"), next((str(info[key]) for key in _CHANGES_WITH_CONTENT if info.get(key)), ""))


async def _coroutine(act: Callable[[], Awaitable[T]]) -> T:
    return await act()
