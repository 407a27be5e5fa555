"""What a stream needs of rows that are made one after another, so that it can go on where another process stopped."""

from typing import Any, Protocol

import torch.distributed


class Bookmarks(Protocol):
    """Rows of one rank that are made one after another: places from which they can be made anew, as plain data."""

    def begin(self) -> None:
        """Training is to read the rows now. Raises `UserError` where they cannot be made as the settings want it."""

    def end(self) -> None:
        """Training has ended, and reads no more."""

    def bookmark(self, row: int) -> dict[str, Any]:
        """The last place known from which row `row` can be made."""

    def check(self, bookmark: dict[str, Any]) -> None:
        """Raise `UserError` for a bookmark from which other rows would be made than before it was written."""

    def go_to(self, bookmark: dict[str, Any]) -> None:
        """Make rows from there on when they are next read."""


def of_all_ranks(mine: dict[str, Any], world: int) -> list[dict[str, Any]]:
    """Every rank's bookmark, by rank: a checkpoint has rank 0's state alone. A collective of all ranks."""
    if world == 1:
        return [mine]
    theirs: list[Any] = [None] * world
    torch.distributed.all_gather_object(theirs, mine)
    return theirs
