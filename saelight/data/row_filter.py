"""Which rows of a model's activations are to be trained on: not those of special tokens, of a window's first positions or of
listed tokens, and not those whose norm is many times the usual.

A few rows of a language model, mostly of first tokens, are a hundred times as long as all others (attention sinks: Xiao et
al., arXiv 2309.17453; massive activations: Sun et al., arXiv 2402.17762). They hold nearly all of Σ‖x‖², and an SAE that
fits them alone has a splendid FVU.

Shapes: N rows, D width of a hook's rows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.data.dropped import REASONS, Dropped
from saelight.data.norms import MAX_NORM, median_norm, norm_limit, row_squares
from saelight.errors import UserError

FIRST_ROWS = 8192
"""Rows that a limit is taken from: the first that nothing else drops."""


class Limit(NamedTuple):
    """How long the rows of a hook may be."""

    median: float
    """The median norm that it was taken from."""
    norm: float
    """The norm that no row exceeds; infinite where all may stay."""


class Piece(NamedTuple):
    """Consecutive rows of one or several hooks: row i of each is of the same token."""

    x: dict[str, Tensor]
    """Rows as they are stored, by hook: (N, D)."""
    columns: dict[str, Tensor]
    """token_ids, positions and document_ids, as far as they are known: (N,)."""
    special_N: Tensor | None = None
    """bool: tokens that the tokenizer added and that are to be dropped."""

    @property
    def rows(self) -> int:
        """N."""
        return len(next(iter(self.x.values())))

    def take(self, rows: Tensor | slice) -> "Piece":
        """Some of the rows: a slice, or a mask (N,)."""
        return Piece(
            {hook: x_ND[rows] for hook, x_ND in self.x.items()},
            {name: column_N[rows] for name, column_N in self.columns.items()},
            None if self.special_N is None else self.special_N[rows],
        )


class RowFilter:
    """Lets those rows pass that are to be trained on, in their order, and counts the others.

    What passes depends on the rows alone, not on how they are cut into pieces: the limit of each hook is `max_norm` times
    the median norm of the first 8,192 rows that nothing else drops (of fewer, if `at_most` or the data are fewer), which
    wait until it is known. A row that one hook drops is dropped for all, so that they stay row for row the same tokens.

    Args:
        max_norm: In medians. None keeps rows of any norm.
        skip_positions: Positions at the beginning of a window that are dropped.
        drop_tokens: Token ids that are dropped.
        at_most: Rows that pass at most; what comes after the last of them is not counted.
        limits: Each hook's, where they are known. None: of these rows.

    Raises:
        UserError: Settings that make no sense, or that need a column which the rows do not have.
    """

    def __init__(
        self,
        max_norm: float | None = MAX_NORM,
        skip_positions: int = 0,
        drop_tokens: Sequence[int] = (),
        at_most: int | None = None,
        limits: Mapping[str, Limit] | None = None,
    ) -> None:
        if max_norm is not None and not 1 < max_norm < math.inf:
            raise UserError(f"max_norm is in medians and must be above 1, got {max_norm}; null keeps all rows")
        if skip_positions < 0:
            raise UserError(f"skip_positions must be at least 0, got {skip_positions}")
        self.settings: dict[str, Any] = {
            "max_norm": max_norm,
            "skip_positions": skip_positions,
            "drop_tokens": list(drop_tokens),
        }
        self.max_norm, self.skip_positions, self.at_most = max_norm, skip_positions, at_most
        self._drop_tokens = torch.tensor(list(drop_tokens), dtype=torch.int64)
        self.limits: dict[str, Limit] = dict(limits or {})
        """Each hook's limit, once it is known."""
        self._dropped = Dropped(self.limits) if self.limits else None
        self.passed = 0
        """Rows that have passed so far."""

    def __call__(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces without the rows that are dropped, until `at_most` rows have passed."""
        waiting: list[Piece] = []
        found, wanted = 0, FIRST_ROWS if self.at_most is None else min(FIRST_ROWS, self.at_most)
        for piece in pieces:
            waiting.append(piece)
            if not self.limits:
                found += int((self._reasons(piece) == 0).sum())
                if found < wanted:
                    continue
                self._freeze(waiting, wanted)
            yield from map(self._pass, waiting)
            waiting = []
            if self.passed == self.at_most:
                return
        if waiting:
            self._freeze(waiting, wanted)
            yield from map(self._pass, waiting)

    @property
    def seen(self) -> int:
        """Rows that have come so far."""
        return 0 if self._dropped is None else int(self._dropped.counts_R.sum())

    @property
    def left(self) -> float:
        """How many more rows pass at most."""
        return math.inf if self.at_most is None else self.at_most - self.passed

    def report(self, hook: str) -> dict[str, Any]:
        """What was dropped, and by which settings, as plain data (docs/shards.md)."""
        assert self._dropped is not None
        median, limit = self.limits[hook]
        known = {"limit": limit if limit < math.inf else None, "median_norm": median}
        return self.settings | known | self._dropped.report(hook)

    def state(self) -> dict[str, Any] | None:
        """What it knows, to go on from: plain data. None before the limits are known."""
        if self._dropped is None:
            return None
        limits = {hook: [median, norm if norm < math.inf else None] for hook, (median, norm) in self.limits.items()}
        return {"limits": limits, "passed": self.passed, "dropped": self._dropped.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`: what comes next is what came after it."""
        known = state["limits"].items()
        self.limits = {hook: Limit(median, math.inf if norm is None else norm) for hook, (median, norm) in known}
        self.passed = state["passed"]
        self._dropped = Dropped(self.limits)
        self._dropped.load_state(state["dropped"])

    def _reasons(self, piece: Piece) -> Tensor:
        """Why each row is dropped, its norm apart: (N,) int64, 0 for one that stays."""
        reasons_N = torch.zeros(piece.rows, dtype=torch.int64)
        if len(self._drop_tokens):
            token_ids = _column(piece, "token_ids", "drop_tokens")
            reasons_N[torch.isin(token_ids.long(), self._drop_tokens)] = REASONS.index("token")
        if self.skip_positions:
            positions = _column(piece, "positions", "skip_positions")
            reasons_N[positions < self.skip_positions] = REASONS.index("position")
        if piece.special_N is not None:
            reasons_N[piece.special_N] = REASONS.index("special")
        return reasons_N

    def _freeze(self, waiting: list[Piece], wanted: int) -> None:
        """Take the limits from the first rows of these pieces."""
        stay = [self._reasons(piece) == 0 for piece in waiting]
        for hook in waiting[0].x:
            squares = [row_squares(piece.x[hook][stay_N]) for piece, stay_N in zip(waiting, stay, strict=True)]
            squares_N = torch.cat(squares)[:wanted]
            self.limits[hook] = Limit(median_norm(squares_N), norm_limit(squares_N, self.max_norm))
        self._dropped = Dropped(self.limits)

    def _pass(self, piece: Piece) -> Piece:
        assert self._dropped is not None
        reasons_N = self._reasons(piece)
        squares = {hook: row_squares(x_ND) for hook, x_ND in piece.x.items()}
        for hook, squares_N in squares.items():
            # What is not finite stays: the writer names it.
            long_N = (squares_N > self.limits[hook].norm ** 2) & squares_N.isfinite()
            reasons_N[long_N & (reasons_N == 0)] = REASONS.index("norm")
        stays_N = reasons_N == 0
        if self.at_most is not None and int(stays_N.sum()) >= (room := self.at_most - self.passed):
            end = int(stays_N.nonzero()[room - 1]) + 1 if room else 0
            piece, reasons_N, stays_N = piece.take(slice(end)), reasons_N[:end], stays_N[:end]
            squares = {hook: squares_N[:end] for hook, squares_N in squares.items()}
        self._dropped.add(reasons_N, squares, piece.columns)
        self.passed += int(stays_N.sum())
        return piece if stays_N.all() else piece.take(stays_N)


def _column(piece: Piece, name: str, setting: str) -> Tensor:
    if name not in piece.columns:
        raise UserError(f"{setting} needs the column {name}, which these rows do not have; drop {setting}")
    return piece.columns[name]
