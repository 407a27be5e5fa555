"""What is kept in memory to be asked for again, and how often it was."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class CountedCache(Generic[Value]):
    """The last `most` values by key; what was longest not asked for makes room. Safe from several threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.hits = self.misses = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Value], fits: Callable[[Value], bool] = lambda value: True) -> Value:
        """The value of a key: the one that is kept, if it still `fits`, or a new one."""
        with self._lock:
            if key in self._values and fits(self._values[key]):
                self.hits += 1
                self._values.move_to_end(key)
                return self._values[key]
            self.misses += 1
        value = make()
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value

    def known(self, key: Hashable) -> Value | None:
        """The value that is kept, if one is."""
        with self._lock:
            if key not in self._values:
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return self._values[key]

    def stats(self) -> dict[str, int]:
        """What it holds and how it was used."""
        return {"entries": len(self._values), "most": self.most, "hits": self.hits, "misses": self.misses}


def rate(*caches: CountedCache[Any]) -> float | None:
    """Hits of all that some caches were asked; None before they were."""
    hits, misses = (sum(getattr(cache, name) for cache in caches) for name in ("hits", "misses"))
    return hits / (hits + misses) if hits + misses else None
