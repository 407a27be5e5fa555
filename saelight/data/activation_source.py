"""Activations from disk, in shards or another layout: their settings, their split, and the targets beside them."""

import itertools
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from saelight.data.foreign.opening import open_rows
from saelight.data.pairs import PairedRows
from saelight.data.remote.range_cache import RangeCache
from saelight.data.sampled_sums import first_sums
from saelight.data.source import Opened, Rows, Source, Span
from saelight.data.stored_rows import StoredRows
from saelight.errors import UserError
from saelight.ranges import LONGEST, Range

_SCAN = 1 << 16


@dataclass(eq=False)
class ActivationSource(Source):
    """Activations from disk: a folder of shards (`saelight shards harvest`) or what another tool wrote (docs/data.md), for
    transcoders paired with those of another hook."""

    evaluation_only: ClassVar[frozenset[str]] = Source.evaluation_only | {"cache_dir", "cache_gb"}
    located_by: ClassVar[frozenset[str]] = frozenset({"path", "val_path", "val_fraction", "target_path", "target_val_path"})

    path: str
    """Folder of the shards; or a .npy, .npz, .safetensors or .parquet file, a folder of such, a cache of saev, SAELens or
    OpenMOSS, raw arrays with .meta. `PATH:NAME` says which tensor or column, `PATH@6` which layer, of several. Shards may be
    at a URL: `s3://BUCKET/FOLDER`, `gs://`, `hf://`, `https://`."""
    _: KW_ONLY
    val_path: str | None = None
    """What to validate on, as `path`. Default: hold out `val_fraction` of `path`."""
    val_fraction: Annotated[float, Range(least=0, below=1)] = 0.02
    """Share of the rows held out for validation, in [0, 1): the last whole documents in harvest order, rows when there are
    no documents; never trained on. 0: no validation. Unused with `val_path`."""
    target_path: str | None = None
    """Activations of the same tokens, from another hook: what transcoders are to predict from `path`'s rows. Normalised
    on its own. Default: none, autoencoders reconstruct `path`'s rows."""
    target_val_path: str | None = None
    """The targets of `val_path`'s rows. Needed with both `val_path` and `target_path`."""
    cache_dir: str | None = None
    """Folder on a local disk where blocks read from URLs are kept, for the next epoch, run or process; what was used longest
    ago goes first. Default: nothing is kept."""
    cache_gb: Annotated[float, Range(above=0, most=1e6)] = 100.0
    """GB (10⁹ bytes) that `cache_dir` holds at most. Unused without it."""
    buffer: Annotated[int | None, Range(least=1, most=2**40)] = None
    """Train on the rows in their order, mixed in a buffer of so many, as `ModelDataModule` does. Default: blocks from
    everywhere are shuffled."""
    first_rows: Annotated[int | None, Range(least=1, most=LONGEST)] = None
    """Take mean and scale, and what SAEs start from, from so many of the first training rows, as `ModelDataModule` does.
    Default: the exact sums of all, where they are known, and a start from everywhere."""

    def check(self) -> None:
        super().check()
        if self.target_val_path is not None and (self.target_path is None or self.val_path is None):
            missing = "target_path" if self.target_path is None else "val_path"
            raise UserError(
                f"data.target_val_path is for data.val_path's rows, in runs with a data.target_path; set data."
                f"{missing}, or leave it out"
            )
        if self.target_path is not None and self.val_path is not None and self.target_val_path is None:
            raise UserError(
                "data.val_path has no targets; set data.target_val_path to the shards of its tokens from "
                "data.target_path's hook"
            )

    def open(self) -> Opened:
        """Open the shards. Raises `UserError` when they cannot be read, or do not belong together."""
        cache = None if self.cache_dir is None else RangeCache(self.cache_dir, round(self.cache_gb * 1e9))
        inputs = open_rows(self.path, cache)
        targets = None if self.target_path is None else open_rows(self.target_path, cache)
        rows: Rows = inputs if targets is None else PairedRows(inputs, targets)
        n_train_rows, val = self._split(rows, inputs, targets, cache)
        sums, target_sums = inputs.sums, None if targets is None else targets.sums
        if self.first_rows is not None and self.normalise != "none":
            first = min(self.first_rows, n_train_rows)
            sums, target_sums = (None if side is None else first_sums(side, first) for side in (inputs, targets))
        return Opened(rows, n_train_rows, val, sums, target_sums=target_sums, buffer=self.buffer, first_rows=self.first_rows)

    def _split(
        self, rows: Rows, inputs: StoredRows, targets: StoredRows | None, cache: RangeCache | None
    ) -> tuple[int, Span | None]:
        """How many of the rows are for training, and what is for validation."""
        if self.val_path is not None:
            val_inputs = _like(inputs, "path", self.val_path, cache)
            val_rows: Rows = val_inputs
            if targets is not None and self.target_val_path is not None:
                val_rows = PairedRows(val_inputs, _like(targets, "target_path", self.target_val_path, cache))
            return rows.n_rows, Span(val_rows, 0, val_rows.n_rows)
        if self.val_fraction == 0:
            return rows.n_rows, None
        documents = targets if targets is not None and "document_ids" not in inputs.columns else inputs
        first = held_out_from(documents, self.val_fraction)
        return first, Span(rows, first, rows.n_rows)


def _like(rows: StoredRows, name: str, val_path: str, cache: RangeCache | None) -> StoredRows:
    """The validation shards for `rows`. Raises `UserError` when they are of another width."""
    val_rows = open_rows(val_path, cache)
    if val_rows.d_in != rows.d_in:
        raise UserError(
            f"data.{name.replace('path', 'val_path')} {val_path} has width {val_rows.d_in}, data.{name} has "
            f"{rows.d_in}; harvest both from the same hook"
        )
    return val_rows


def held_out_from(rows: StoredRows, fraction: float) -> int:
    """First row of the validation set: the document start nearest to where the last `fraction` of the rows begins.
    Without document ids, that row itself.

    Raises `UserError` when the rows are one document.
    """
    target = rows.n_rows - max(1, round(rows.n_rows * fraction))
    if target == 0:
        raise UserError(f"data.val_fraction {fraction} of {rows.n_rows} rows leaves none to train on; lower it")
    if "document_ids" not in rows.columns:
        return target
    after = (_document_starts(rows, low, min(low + _SCAN, rows.n_rows)) for low in range(target, rows.n_rows, _SCAN))
    near = [int(s[0]) for s in itertools.islice(filter(len, after), 1)]
    # Further away than the one found above it need not be looked for.
    lowest = max(1, 2 * target - near[0]) if near else 1
    before = (_document_starts(rows, max(1, high - _SCAN), high) for high in range(target, lowest, -_SCAN))
    near += [int(s[-1]) for s in itertools.islice(filter(len, before), 1)]
    if near:
        return min(near, key=lambda row: abs(row - target))
    raise UserError(
        f"the shards at {rows.path} are a single document, none can be held out; set data.val_path, or data.val_fraction 0"
    )


def _document_starts(rows: StoredRows, low: int, high: int) -> Tensor:
    """Rows in [low, high), low >= 1, whose document is not that of the row before: int64."""
    ids = rows.column("document_ids", low - 1, high - low + 1)
    return (ids[1:] != ids[:-1]).nonzero().flatten() + low
