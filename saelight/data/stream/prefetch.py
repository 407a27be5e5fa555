"""One background thread that works ahead, and never outlives its consumer."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from saelight.data.stopping import STOP

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Runs an iterator in a thread, at most `slots` items beyond those released.

    Args:
        produce: Makes the iterator. It is given an event and should return soon after that is set. It must not refer to
            this object or its owner: these stop the thread by being dropped.
        slots: Items that exist at a time, from the moment the iterator is asked for one until its `release`.
    """

    def __init__(self, produce: Callable[[threading.Event], Iterator[T]], slots: int) -> None:
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._slots = threading.Semaphore(slots)
        stop = threading.Event()
        # A daemon, stopped by the finalizer, which also runs at exit: the interpreter waits for other threads before it
        # would tell them to stop, and a daemon still in native code when it goes down can abort the process.
        thread = threading.Thread(
            target=_run, args=(produce, stop, self._slots, self._ready), name="saelight-prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _stop, thread, stop, self._slots)
        thread.start()

    def get(self) -> T:
        """The next item. Raises what the iterator raised, StopIteration at its end."""
        item, error = self._ready.get()
        if error is not None:
            self._ready.put((None, error))
            raise error
        return item

    def release(self) -> None:
        """Say that the oldest item still held is no longer needed."""
        self._slots.release()

    def close(self) -> None:
        """Stop the thread and wait for it. Also happens when the object is dropped, and at exit."""
        self._finalizer()


def _run(produce: Callable, stop: threading.Event, slots: threading.Semaphore, ready: queue.SimpleQueue) -> None:
    STOP.set(stop)
    try:
        items = produce(stop)
        while slots.acquire() and not stop.is_set():
            ready.put((next(items), None))
        ready.put((None, StopIteration()))
    except BaseException as e:
        ready.put((None, e))


def _stop(thread: threading.Thread, stop: threading.Event, slots: threading.Semaphore) -> None:
    stop.set()
    slots.release()
    # The garbage collector may run this in any thread, the one to be joined included.
    if thread is not threading.current_thread():
        thread.join()
