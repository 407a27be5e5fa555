"""What a runner is to do: groups, taken as there is room for them."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from saelight.sweep.store.sweep_folder import Group

TOGETHER = 8
"""Trials that a search asks for at once when the sweep has no `max_saes`: more fill a batch better, fewer learn sooner."""


class Work(Protocol):
    """Where a runner's groups come from."""

    @property
    def left(self) -> bool:
        """Whether there will be more groups."""

    def take(self, n: int) -> list[Group]:
        """Up to n more groups."""

    def ended(self, group: str, error: str | None) -> None:
        """A group has come to its end, well or with an error that stays."""

    def summary(self) -> list[str]:
        """What to say when all is done."""

    def failures(self) -> list[str]:
        """What failed beside whole groups, a line each."""


class Listed:
    """Groups that are known beforehand."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._queue = deque(groups)

    @property
    def left(self) -> bool:
        return bool(self._queue)

    def take(self, n: int) -> list[Group]:
        return [self._queue.popleft() for _ in range(min(n, len(self._queue)))]

    def ended(self, group: str, error: str | None) -> None:
        pass

    def summary(self) -> list[str]:
        return []

    def failures(self) -> list[str]:
        return []
