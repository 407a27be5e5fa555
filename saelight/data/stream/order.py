"""The order of training rows, as pure functions of (seed, pass, rank, world size): nothing here reads data.

The rows to train on are cut into blocks. A *pass* is a permutation of all blocks; passes follow one another without
end, and that endless deck is dealt to the ranks in turn. A rank's blocks of one pass are grouped into windows; a
window's rows are permuted. So every rank has one endless row order, and every row comes exactly once per pass.

Rows that can only be had one after another are mixed in the windows alone: then a pass is the blocks as they stand.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 512
"""Rows of a block: consecutive on disk, read at once."""
WINDOW = 128
"""Blocks of a window: what is mixed in memory."""

# What a generator is for is part of its seed, so that no two uses draw the same numbers.
_PASS, _WINDOW, _SAMPLE = 0, 1, 2


class Blocks(NamedTuple):
    """Runs of consecutive rows: int64 arrays of equal length."""

    starts: np.ndarray
    sizes: np.ndarray

    @property
    def rows(self) -> int:
        return int(self.sizes.sum())


class Window(NamedTuple):
    """Some blocks of one rank's pass, and where the window stands."""

    starts: np.ndarray
    sizes: np.ndarray
    pass_: int
    number: int

    @property
    def rows(self) -> int:
        return int(self.sizes.sum())


def cut(start: int, stop: int, block: int = BLOCK) -> Blocks:
    """Rows [start, stop) as blocks; the last may be short."""
    starts = np.arange(start, stop, block, dtype=np.int64)
    return Blocks(starts, np.minimum(block, stop - starts))


def sample(blocks: Blocks, rows: int, seed: int) -> Blocks:
    """A uniform choice of blocks with exactly `rows` rows (all of them when there are fewer); one block is trimmed."""
    if rows >= blocks.rows:
        return blocks
    chosen = np.random.default_rng([seed, _SAMPLE]).permutation(len(blocks.starts))
    ends = blocks.sizes[chosen].cumsum()
    chosen = chosen[: int(np.searchsorted(ends, rows)) + 1]
    sizes = blocks.sizes.copy()
    sizes[chosen[-1]] -= ends[len(chosen) - 1] - rows
    chosen.sort()
    return Blocks(blocks.starts[chosen], sizes[chosen])


class Plan:
    """One rank's endless order of the rows in `blocks`: of blocks that are shuffled, or, `in_order`, as they stand."""

    def __init__(
        self, blocks: Blocks, seed: int = 0, rank: int = 0, world: int = 1, window: int = WINDOW, in_order: bool = False
    ) -> None:
        self.blocks, self.seed, self.rank, self.world, self.window = blocks, seed, rank, world, window
        self.in_order = in_order

    def pass_blocks(self, pass_: int) -> np.ndarray:
        """Numbers of this rank's blocks in a pass, in order."""
        n = len(self.blocks.starts)
        order = np.arange(n) if self.in_order else np.random.default_rng([self.seed, _PASS, pass_]).permutation(n)
        # The deal goes on where the pass before stopped: no rank has more rows than another for long.
        return order[(self.rank - pass_ * n) % self.world :: self.world]

    def windows(self, row: int) -> Iterator[tuple[Window, int]]:
        """The windows from `row` of this rank's order on, without end, with rows to skip in the first."""
        pass_ = row // self.blocks.rows if self.world == 1 else 0
        row -= pass_ * self.blocks.rows
        while True:
            mine = self.pass_blocks(pass_)
            sizes = self.blocks.sizes[mine]
            if row < (rows := int(sizes.sum())):
                for index, first in enumerate(range(0, len(mine), self.window)):
                    span = slice(first, first + self.window)
                    window = Window(self.blocks.starts[mine[span]], sizes[span], pass_, index)
                    if row < window.rows:
                        yield window, row
                    row = max(0, row - window.rows)
            else:
                row -= rows
            pass_ += 1

    def order(self, window: Window) -> np.ndarray:
        """The permutation of a window's rows: (rows,) int64, positions in the window."""
        rng = np.random.default_rng([self.seed, _WINDOW, window.pass_, self.rank, window.number])
        return rng.permutation(window.rows)
