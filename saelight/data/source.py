"""What a source of activations is: rows addressed by number for the streams, and for everyone else a declaration that says
what it holds. Nothing here needs Lightning.

Shapes: N rows, D d_in, G true features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

from torch import Tensor

from saelight.data.moments import Sums
from saelight.data.pairs import PairedRows
from saelight.data.rows import Rows as Rows  # what sources are of: its name here is the public one
from saelight.data.stored_rows import StoredRows
from saelight.data.stream.bookmarks import Bookmarks
from saelight.data.stream.order import BLOCK, WINDOW
from saelight.errors import UserError
from saelight.ops.normalisation import Kind
from saelight.ranges import LONGEST, SEED, Range, checked, hints_of

_WINDOWS = 2.6
"""Windows that a training stream holds: one that is read from, one that is filled, and what is on its way (measured)."""
_INDEX, _FLOAT = 8, 4
BATCHES_HELD = 6
"""float32 batches that a step holds: the stored one, the normalised one and the next, centred, reconstructions, errors."""


class Span(NamedTuple):
    """Rows [start, stop) of a source."""

    rows: Rows
    start: int
    stop: int


class RankRows(NamedTuple):
    """One rank's own training rows."""

    rows: Rows
    n_rows: int
    """How many of them an epoch has."""
    bookmarks: Bookmarks
    """Where they can go on."""


class Opened(NamedTuple):
    """A source's data, ready to be read."""

    rows: Rows
    """The rows; `predict` runs over all of them. `PairedRows` make every batch a `Pair`."""
    n_train_rows: int
    """Rows [0, n_train_rows) are for training."""
    val: Span | None
    """What to validate and test on, if anything."""
    sums: Sums | None = None
    """Of the rows, of pairs those of the inputs, where they are known exactly. None: normalisation samples the rows."""
    features: Tensor | None = None
    """The true directions, (G, D) unit rows, when they are known."""
    target_sums: Sums | None = None
    """Of pairs, as `sums` those of the targets."""
    buffer: int | None = None
    """Training takes the rows in their order, mixed in a buffer of so many. None: blocks from everywhere are shuffled."""
    first_rows: int | None = None
    """The start of SAEs looks at so many of the first training rows alone. None: at blocks from everywhere."""
    of_rank: Callable[[int, int], RankRows] | None = None
    """Of rows that are made one after another: those of a rank among so many, (rank, ranks). None: all ranks read `rows`."""


class Description(NamedTuple):
    """What a run over a source needs to know before it starts."""

    d_in: int
    """Width of an activation."""
    d_out: int | None
    """Width of a target; None when there are no targets."""
    train_rows: int
    """Rows of an epoch: the validation split and `max_samples` applied."""
    batch_size: int
    """Rows of a batch on each process."""
    row_bytes: int
    """Bytes of a row as the stream carries it, its target included."""
    stream_bytes: int
    """Bytes that the training stream's buffers hold, and rows that are in memory as a whole."""
    gpu_bytes: int
    """Bytes of a GPU that the data take where it gathers the batches: two windows and their orders, and batches."""


@dataclass(kw_only=True, eq=False)
class Source(ABC):
    """Where activations come from, as a dataclass whose fields are the settings.

    Making one checks the settings and opens nothing. Subclasses are dataclasses too; they give `open`.

    Raises:
        UserError: for settings that make no sense.
    """

    located_by: ClassVar[frozenset[str]] = frozenset()
    """Settings that only say which rows there are and where (paths, a split): once the data can be read, `identity` has
    fingerprints and row numbers in their place."""
    evaluation_only: ClassVar[frozenset[str]] = frozenset({"val_batch_size", "predict_rows"})
    """Settings that no weight depends on."""

    batch_size: Annotated[int, Range(least=1, most=2**24)] = 4096
    """Rows (tokens) of a batch on each process. 4096 draws on all blocks in memory, few rows from each."""
    val_batch_size: Annotated[int | None, Range(least=1, most=2**24)] = None
    """Rows of a validation, test or prediction batch on each process. Default: `batch_size`."""
    max_samples: Annotated[int | None, Range(least=1, most=LONGEST)] = None
    """Train on this many rows at most, a seeded uniform choice of blocks. Default: on all."""
    normalise: Kind = "standard"
    """standard: subtract the mean and scale by one number so that E‖x‖² = d_in, which makes learning rates and sparsity
    coefficients carry over between models. rms: scale alone, for rows without much of a mean. none: as stored."""
    seed: Annotated[int, SEED] = 0
    """Seed of the order, of `max_samples`, of the sample that SAEs are initialised from, and of rows that are made."""
    predict_rows: Annotated[int | None, Range(least=1, most=LONGEST)] = None
    """Rows that `predict` runs over, from the first on. Default: all, validation's last."""

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for field in fields(self):
            setattr(self, field.name, checked(f"data.{field.name}", getattr(self, field.name), hints[field.name]))
        self.check()

    def check(self) -> None:  # noqa: B027 (most have nothing to add)
        """Raise `UserError` for values that make no sense together; each by itself has been checked."""

    @abstractmethod
    def open(self) -> Opened:
        """Open the data. Raises `UserError` when they cannot be read (yet)."""

    @cached_property
    def opened(self) -> Opened:
        """The data, opened at the first use. Raises as `open` does."""
        return self.open()

    def describe(self) -> Description:
        """Widths, rows and bytes. Raises `UserError` when the data cannot be read yet."""
        opened = self.opened
        return self._description(opened.rows, opened.n_train_rows, opened.buffer or WINDOW * BLOCK)

    def identity(self) -> dict[str, Any]:
        """All that training depends on, and nothing else, as plain data: equal for sources that give every SAE the same
        batches, however they are spelt. The code of a class is not part of it.

        While the data cannot be read, the settings that locate them stand for them.
        """
        try:
            opened = self.opened
        except UserError:
            return self._settings(self.evaluation_only)
        val = opened.val and [opened.val.rows.fingerprint, opened.val.start, opened.val.stop]
        rows = {"rows": opened.rows.fingerprint, "n_train_rows": opened.n_train_rows, "val": val}
        return self._settings(self.evaluation_only | self.located_by) | {"data": rows}

    def declared_by(self) -> type["Source"]:
        """The class that says what the source is."""
        return type(self)

    def _settings(self, without: frozenset[str]) -> dict[str, Any]:
        cls = self.declared_by()
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in without}
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "settings": settings}

    def _description(self, rows: Rows, n_train_rows: int, buffer: int = WINDOW * BLOCK, more: int = 0) -> Description:
        """Of so many training rows, mixed in a buffer of so many, by a source that holds `more` bytes itself."""
        inputs, targets = sides(rows)
        train_rows = n_train_rows if self.max_samples is None else min(self.max_samples, n_train_rows)
        row_bytes = rows.d_in * rows.dtype.itemsize
        held = sum(side.held_bytes for side in (inputs, targets) if isinstance(side, StoredRows)) + more
        window, width = min(train_rows, buffer), rows.d_in
        return Description(
            d_in=inputs.d_in,
            d_out=None if targets is None else targets.d_in,
            train_rows=train_rows,
            batch_size=self.batch_size,
            row_bytes=row_bytes,
            stream_bytes=round(_WINDOWS * window * row_bytes) + held,
            gpu_bytes=2 * window * (row_bytes + _INDEX) + BATCHES_HELD * _FLOAT * self.batch_size * width,
        )


def sides(rows: Rows) -> tuple[Rows, Rows | None]:
    """The rows of the activations, and of the targets when there are any."""
    return (rows.inputs, rows.targets) if isinstance(rows, PairedRows) else (rows, None)
