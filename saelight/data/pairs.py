"""Two hooks' stored rows side by side: row i of one is a transcoder's input, row i of the other its target.

Shapes: N rows, B batch, D width (of an input d_in, of a target d_out).
"""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.data.finite import first_non_finite
from saelight.data.rows import Rows
from saelight.data.shards.reader import TOKEN_COLUMNS, runs
from saelight.data.stored_rows import StoredRows
from saelight.errors import UserError

_SERIAL = 32_767  # values that torch copies on the calling thread, without its team


class Pair(NamedTuple):
    """A transcoder's batch. It is a tuple, so `len` of it is 2; its tokens are `len(pair.x_BD)`."""

    x_BD: Tensor
    """The inputs: (B, d_in)."""
    y_BD: Tensor
    """The targets, of the same tokens: (B, d_out)."""


def as_pair(batch: Tensor | tuple[Tensor, Tensor]) -> Pair:
    """What a loader gives, x (B, d_in) or (x, y), as inputs and targets: an autoencoder's target is x itself."""
    return Pair(*batch) if isinstance(batch, tuple | list) else Pair(batch, batch)


class PairedRows:
    """A `Rows` whose every row is an input followed by its target: what orders, reads ahead and resumes rows need not know
    of pairs.

    Rows have the dtype that holds both sides' values exactly: theirs, or float32 when they differ.

    Raises:
        UserError: The sides have different numbers of rows, or rows of different tokens.
    """

    def __init__(self, inputs: Rows, targets: Rows) -> None:
        if isinstance(inputs, StoredRows) and isinstance(targets, StoredRows):
            check_same_tokens(inputs, targets)
        self.inputs, self.targets = inputs, targets
        self.n_rows = inputs.n_rows
        self.d_in = inputs.d_in + targets.d_in
        """Width of an input and its target together."""
        self.dtype = torch.promote_types(inputs.dtype, targets.dtype)

    @property
    def fingerprint(self) -> str:
        """A hash over both sides'."""
        return hashlib.sha256(f"{self.inputs.fingerprint} {self.targets.fingerprint}".encode()).hexdigest()[:32]

    @property
    def source(self) -> dict[str, Any]:
        return {"inputs": self.inputs.source, "targets": self.targets.source}

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        for side, part in zip((self.inputs, self.targets), self.split(out), strict=True):
            x_ND = torch.empty(len(out), side.d_in, dtype=side.dtype)
            side.read(start, x_ND)
            rows = max(1, _SERIAL // side.d_in)
            for piece, place in zip(x_ND.split(rows), part.split(rows), strict=True):
                place.copy_(piece)

    def split(self, x_ND: Tensor) -> Pair:
        """Rows as inputs (N, d_in) and targets (N, d_out): views."""
        return Pair(x_ND[:, : self.inputs.d_in], x_ND[:, self.inputs.d_in :])

    def will_need(self, start: int, n: int) -> None:
        self.inputs.will_need(start, n)
        self.targets.will_need(start, n)

    def where(self, row: int) -> str:
        """A row's place: on the side that is not finite when just one is not, or else on both."""
        sides = (self.inputs, self.targets)
        bad = [side for side in sides if not _finite(side, row)]
        return " and ".join(side.where(row) for side in bad or sides)


def check_same_tokens(inputs: StoredRows, targets: StoredRows) -> None:
    """Compare how many rows there are, and in 64 runs of 1024 spread from the first to the last the columns that both have.
    That is every row of up to 65,536; of more, no 63rd part of the rows is shifted or of another text unseen."""
    if inputs.n_rows != targets.n_rows:
        raise UserError(
            f"inputs and targets are no pairs: {inputs.path} has {inputs.n_rows} rows, {targets.path} has "
            f"{targets.n_rows}; harvest both hooks in one command"
        )
    shared = [name for name in TOKEN_COLUMNS if name in inputs.columns and name in targets.columns]
    for start, n in runs(inputs.n_rows):
        for name in shared:
            differ = inputs.column(name, start, n) != targets.column(name, start, n)
            if differ.any():
                raise UserError(
                    f"inputs and targets are not of the same tokens: {inputs.path} and {targets.path} differ in "
                    f"{name} at row {start + int(differ.int().argmax())}; harvest both hooks in one command"
                )


def _finite(rows: Rows, row: int) -> bool:
    x_ND = torch.empty(1, rows.d_in, dtype=rows.dtype)
    rows.read(row, x_ND)
    return first_non_finite(x_ND) is None
