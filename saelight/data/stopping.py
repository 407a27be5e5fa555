"""Whether the work that the current thread does is still wanted: what waits for long asks, and gives up."""

import threading
from contextvars import ContextVar

STOP: ContextVar[threading.Event | None] = ContextVar("saelight_stop", default=None)
"""Set by whoever started the current thread, when its results are no longer wanted. None: they always are."""


class NoLongerWanted(Exception):
    """The thread was asked to end while it waited."""


def check_wanted() -> None:
    """Raise `NoLongerWanted` when the current thread was asked to end."""
    stop = STOP.get()
    if stop is not None and stop.is_set():
        raise NoLongerWanted
