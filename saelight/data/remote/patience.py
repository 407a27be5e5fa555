"""What a request that failed means: to wait and ask again, or one line."""

import os
import random
import time

from saelight.bars import duration
from saelight.data.remote.remote_url import Url
from saelight.errors import UserError, one_line

SECONDS = 300.0
"""How long a place that has answered before is asked again; `SAELIGHT_PATIENCE` (seconds) in its place."""
SECONDS_AT_FIRST = 15.0
"""How long one that has never answered is: its name may be wrong."""
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0
_SAY_AFTER = 5.0
_DENIED = (401, 403)
_NO_SUCH_RANGE = 416
_TRY_AGAIN = (408, 425, 429)
"""Of HTTP's 4xx those that say "later": timeout, too early, too many requests."""


class TooShort(OSError):
    """A request gave fewer bytes than were asked for."""


class Waiting:
    """How often one request has failed, and how long to wait before it is made again: twice as long each time, and a random
    part of it, so that many processes do not come back at once."""

    def __init__(self, url: Url, doing: str) -> None:
        self._url, self._doing = url, doing
        self._since: float | None = None
        self._wait = _FIRST_WAIT

    def after(self, error: Exception, reached: bool) -> float:
        """Seconds to wait after `error`. Raises `UserError` when waiting does not help, or has been tried long enough.

        Args:
            reached: Whether the place has answered before.
        """
        if (line := hopeless(self._url, error, self._doing)) is not None:
            raise line from error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        limit = _limit() if reached else min(SECONDS_AT_FIRST, _limit())
        if now - self._since >= limit:
            raise UserError(
                f"cannot {self._doing} {self._url}: {_cause(error)}, for {duration(now - self._since)}; check the address "
                "and the connection, and start again: a run goes on with --ckpt_path last"
            ) from error
        self.note = f"no answer for {self._url} ({_cause(error)}); trying again for up to {duration(limit)}"
        """What to say of it."""
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return min(wait * (0.5 + random.random()), max(0.05, self._since + limit - now))

    @property
    def long(self) -> bool:
        """Whether it lasts so long that somebody may wonder."""
        return self._since is not None and time.monotonic() - self._since > _SAY_AFTER


def _limit() -> float:
    try:
        return float(os.environ.get("SAELIGHT_PATIENCE", SECONDS))
    except ValueError:
        raise UserError("SAELIGHT_PATIENCE is how many seconds to wait for a lost connection; set a number") from None


def hopeless(url: Url, error: Exception, doing: str) -> UserError | None:
    """The line for an error that no waiting mends; None for one that it may."""
    if isinstance(error, UserError):
        return error
    if url.is_web and isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        # fsspec's HTTP says this of whatever kept it from knowing a file's size.
        return hopeless(url, error.__cause__, doing)
    status = _status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or status == 404:
        return UserError(f"{url.name} is missing from {url.parent}; check the address, or copy the folder whole")
    if isinstance(error, PermissionError) or status in _DENIED:
        return UserError(
            f"cannot {doing} {url}: access denied; log in as its own tools want it (docs/data.md), or ask its owner"
        )
    if "Credential" in type(error).__name__ or "Profile" in type(error).__name__:
        return UserError(f"cannot {doing} {url}: {_cause(error)}; log in as its own tools want it (docs/data.md)")
    if isinstance(error, NotImplementedError):
        return UserError(f"cannot {doing} {url}: {url.scheme}:// does not allow it; use another place, such as s3://")
    if isinstance(error, ValueError | TypeError | ImportError) or (status is not None and 400 <= status < 500):
        return None if status in _TRY_AGAIN else UserError(f"cannot {doing} {url}: {_cause(error)}; check the address")
    return None


def is_short(error: Exception) -> bool:
    """Whether a request for some bytes failed since they were not there, or not all: the file may have become shorter."""
    return isinstance(error, TooShort) or _status(error) == _NO_SUCH_RANGE


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of aiohttp's, gcsfs's or huggingface_hub's."""
    found = getattr(error, "status", None) or getattr(error, "code", None)
    found = found or getattr(getattr(error, "response", None), "status_code", None)
    return int(found) if isinstance(found, int) or (isinstance(found, str) and found.isdecimal()) else None


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if (status := _status(error)) is not None:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    return one_line(error)
