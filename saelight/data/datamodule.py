"""The data modules' common part, and the one over shards.

Everything a model needs to be built (`d_in`, `scale`, ...) is known after `__init__`.

Shapes: B batch, D d_in, W width of a row (d_in, or d_in + d_out), N rows, G true features.
"""

import itertools
import math
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from saelight.data.pairs import Pair, PairedRows
from saelight.data.shards.reader import ShardedRows
from saelight.data.source import Rows
from saelight.data.stream.loaders import SequentialStream, TrainStream
from saelight.data.stream.order import Blocks, cut, sample
from saelight.errors import UserError

Normalise = Literal["rms", "none"]
_INIT_SAMPLE = 3  # beside the seeds in plan.py
_SCAN = 1 << 16


class Span(NamedTuple):
    """Rows [start, stop) of a source."""

    rows: Rows
    start: int
    stop: int


class RowsDataModule(pl.LightningDataModule):
    """Trains on blocks of a source in a shuffled stream, evaluates spans in order, normalises on the device.

    Args:
        rows: The source of the training rows; `predict` runs over all of it. `PairedRows` make every batch a `Pair`.
        n_train_rows: Rows [0, n_train_rows) are for training.
        val: What to validate and test on, or None.
        mean_square_norm: Mean of ‖x‖² over the source; of pairs, over the inputs.
    """

    features: Tensor | None = None
    """The true directions, (G, D) unit rows, when they are known."""

    def __init__(
        self,
        rows: Rows,
        n_train_rows: int,
        val: Span | None,
        mean_square_norm: float,
        *,
        batch_size: int,
        val_batch_size: int | None,
        max_samples: int | None,
        predict_rows: int | None,
        normalise: Normalise,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value in (
            ("batch_size", batch_size),
            ("val_batch_size", val_batch_size),
            ("max_samples", max_samples),
            ("predict_rows", predict_rows),
        ):
            if value is not None and value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}")
        if normalise not in ("rms", "none"):
            raise UserError(f"data.normalise must be rms or none, got {normalise!r}")
        self.rows, self.val, self.seed = rows, val, seed
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.predict_rows = rows.n_rows if predict_rows is None else min(predict_rows, rows.n_rows)
        inputs, targets = (rows.inputs, rows.targets) if isinstance(rows, PairedRows) else (rows, None)
        self.d_in = inputs.d_in
        """Width of an activation (D)."""
        self.source: dict[str, Any] = inputs.source
        """Provenance of the activations: model, hook, dtype, ..."""
        self.scale = _scale("activations", self.d_in, mean_square_norm) if normalise == "rms" else 1.0
        """What activations are multiplied by; with rms E‖x‖² = D after it."""
        self.normalisation = {"kind": normalise, "scale": self.scale}
        """The same as plain data, to be kept with each SAE."""
        self.d_out: int | None = None
        """Width of a target. Like the next two, None when there are no targets."""
        self.target_source: dict[str, Any] | None = None
        """Provenance of the targets."""
        self.target_normalisation: dict[str, Any] | None = None
        """The targets' normalisation: a scale of their own."""
        if targets is not None:
            self.d_out, self.target_source = targets.d_in, targets.source
            scale = _scale("targets", targets.d_in, targets.mean_square_norm) if normalise == "rms" else 1.0
            self.target_normalisation = {"kind": normalise, "scale": scale}
        self._blocks = self._train_blocks(n_train_rows, max_samples)
        self._stream: TrainStream | None = None
        self._resume: dict[str, Any] | None = None

    def _train_blocks(self, n_train_rows: int, max_samples: int | None) -> Blocks:
        blocks = cut(0, n_train_rows)
        return blocks if max_samples is None else sample(blocks, max_samples, self.seed)

    @property
    def fingerprint(self) -> str:
        """Identity of the training data."""
        return self.rows.fingerprint

    @property
    def n_train_rows(self) -> int:
        """Rows trained on, `max_samples` applied."""
        return self._blocks.rows

    @property
    def n_val_rows(self) -> int:
        """Rows of the validation set."""
        return self.val.stop - self.val.start if self.val else 0

    def init_sample(self, n: int = 8192) -> Tensor | Pair:
        """Normalised training rows from seeded blocks, the same on every rank: (min(n, all), D) float32."""
        order = np.random.default_rng([self.seed, _INIT_SAMPLE]).permutation(len(self._blocks.starts))
        x_NW = torch.empty(min(n, self.n_train_rows), self.rows.d_in, dtype=self.rows.dtype)
        done = 0
        for block in order:
            size = min(int(self._blocks.sizes[block]), len(x_NW) - done)
            if size == 0:
                break
            self.rows.read(int(self._blocks.starts[block]), x_NW[done : done + size])
            done += size
        return self._normalised(x_NW)

    def train_dataloader(self) -> TrainStream:
        """A new stream, at the position that a checkpoint brought."""
        rank, world = self._place()
        self._stream = TrainStream(self.rows, self._blocks, self.batch_size, seed=self.seed, rank=rank, world=world)
        if self._resume is not None:
            self._stream.load_state_dict(self._resume)
            self._resume = None
        return self._stream

    def val_dataloader(self) -> SequentialStream | list:
        """All validation rows in order, or no loader."""
        return self._sequential(*self.val) if self.val else []

    def test_dataloader(self) -> SequentialStream | list:
        """The validation rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> SequentialStream:
        """All rows in order, up to `predict_rows`."""
        return self._sequential(self.rows, 0, self.predict_rows)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor | Pair:
        """Stored rows (B, W) to normalised float32, on their device; pairs, which travel side by side, taken apart."""
        return self._normalised(batch)

    def state_dict(self) -> dict[str, Any]:
        """The stream's position. Lightning keeps it for the loader too, but does not give it back after a checkpoint
        from an epoch's end."""
        return self._stream.state_dict() if self._stream is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where the next training loader starts."""
        self._resume = state_dict

    def _sequential(self, rows: Rows, start: int, stop: int) -> SequentialStream:
        return SequentialStream(rows, start, stop, self.val_batch_size, *self._place())

    def _normalised(self, x_BW: Tensor) -> Tensor | Pair:
        if self.target_normalisation is None:
            return _scaled(x_BW, self.scale)
        x_BD, y_BD = self.rows.split(x_BW)
        return Pair(_scaled(x_BD, self.scale), _scaled(y_BD, self.target_normalisation["scale"]))

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def _scale(what: str, width: int, mean_square_norm: float) -> float:
    """What rms multiplies by. Raises `UserError` when nothing does."""
    if not 0 < mean_square_norm < math.inf:
        raise UserError(
            f"data.normalise rms is impossible: the {what}' mean ‖x‖² is {mean_square_norm}; check the data, or "
            "set data.normalise none"
        )
    return math.sqrt(width / mean_square_norm)


def _scaled(x_BD: Tensor, scale: float) -> Tensor:
    x_BD = x_BD.float()
    return x_BD.contiguous() if scale == 1 else x_BD * scale


class ActivationDataModule(RowsDataModule):
    """Activations from a folder of shards (`saelight shards harvest`), for transcoders paired with those of another.

    Args:
        path: Folder of the shards.
        batch_size: Rows (tokens) of a batch on each process. 4096 draws on all blocks in memory, few rows from each.
        val_path: Folder of shards to validate on. Default: hold out `val_fraction` of `path`.
        val_fraction: Share of the rows held out for validation, in [0, 1): the last whole documents in harvest order,
            rows when there are no documents; never trained on. 0: no validation. Unused with `val_path`.
        max_samples: Train on this many rows at most, a seeded uniform choice of blocks. Default: on all.
        normalise: rms: scale by one number so that E‖x‖² = d_in, which makes learning rates and sparsity coefficients
            carry over between models. none: as stored.
        seed: Seed of the order, of `max_samples` and of the sample that SAEs are initialised from.
        val_batch_size: Rows of a validation, test or prediction batch on each process. Default: `batch_size`.
        predict_rows: Rows that `predict` runs over, from the first on. Default: all.
        target_path: Folder of shards of the same tokens, from another hook: what transcoders are to predict from `path`'s
            rows. Normalised on its own. Default: none, autoencoders reconstruct `path`'s rows.
        target_val_path: The targets of `val_path`'s rows. Needed with both `val_path` and `target_path`.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 4096,
        val_path: str | None = None,
        val_fraction: float = 0.02,
        max_samples: int | None = None,
        normalise: Normalise = "rms",
        seed: int = 0,
        val_batch_size: int | None = None,
        predict_rows: int | None = None,
        target_path: str | None = None,
        target_val_path: str | None = None,
    ) -> None:
        if not 0 <= val_fraction < 1:
            raise UserError(f"data.val_fraction must be in [0, 1), got {val_fraction}")
        if target_val_path is not None and (target_path is None or val_path is None):
            missing = "target_path" if target_path is None else "val_path"
            raise UserError(
                f"data.target_val_path is for data.val_path's rows, in runs with a data.target_path; set data."
                f"{missing}, or leave it out"
            )
        if target_path is not None and val_path is not None and target_val_path is None:
            raise UserError(
                "data.val_path has no targets; set data.target_val_path to the shards of its tokens from "
                "data.target_path's hook"
            )
        inputs = ShardedRows(path)
        targets = None if target_path is None else ShardedRows(target_path)
        rows = inputs if targets is None else PairedRows(inputs, targets)
        n_train_rows, val = rows.n_rows, None
        if val_path is not None:
            val_rows = _like(inputs, "path", val_path)
            if targets is not None:
                val_rows = PairedRows(val_rows, _like(targets, "target_path", target_val_path))
            val = Span(val_rows, 0, val_rows.n_rows)
        elif val_fraction > 0:
            documents = targets if targets is not None and "document_ids" not in inputs.columns else inputs
            n_train_rows = held_out_from(documents, val_fraction)
            val = Span(rows, n_train_rows, rows.n_rows)
        super().__init__(
            rows,
            n_train_rows,
            val,
            inputs.mean_square_norm,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            max_samples=max_samples,
            predict_rows=predict_rows,
            normalise=normalise,
            seed=seed,
        )


def _like(rows: ShardedRows, name: str, val_path: str) -> ShardedRows:
    """The validation shards for `rows`. Raises `UserError` when they are of another width."""
    val_rows = ShardedRows(val_path)
    if val_rows.d_in != rows.d_in:
        raise UserError(
            f"data.{name.replace('path', 'val_path')} {val_path} has width {val_rows.d_in}, data.{name} has "
            f"{rows.d_in}; harvest both from the same hook"
        )
    return val_rows


def held_out_from(rows: ShardedRows, fraction: float) -> int:
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
    before = (_document_starts(rows, max(1, high - _SCAN), high) for high in range(target, 1, -_SCAN))
    near = [int(s[0]) for s in itertools.islice(filter(len, after), 1)]
    near += [int(s[-1]) for s in itertools.islice(filter(len, before), 1)]
    if near:
        return min(near, key=lambda row: abs(row - target))
    raise UserError(
        f"the shards at {rows.path} are a single document, none can be held out; set data.val_path, or data.val_fraction 0"
    )


def _document_starts(rows: ShardedRows, low: int, high: int) -> Tensor:
    """Rows in [low, high), low >= 1, whose document is not that of the row before: int64."""
    ids = rows.column("document_ids", low - 1, high - low + 1)
    return (ids[1:] != ids[:-1]).nonzero().flatten() + low
