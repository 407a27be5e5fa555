"""Sources bound to Lightning: the data modules.

Everything a model needs to be built (`d_in`, `scale`, ...) is known after `__init__`.

Shapes: B batch, D d_in, W width of a row (d_in, or d_in + d_out), N rows, G true features.
"""

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from saelight.data.activation_source import ActivationSource
from saelight.data.pairs import Pair, PairedRows
from saelight.data.source import Rows, Source, sides
from saelight.data.stream.loaders import SequentialStream, TrainStream
from saelight.data.stream.order import cut, sample
from saelight.data.synthetic_source import SyntheticSource
from saelight.errors import UserError

_INIT_SAMPLE = 3  # beside the seeds in order.py


class RowsDataModule(Source, pl.LightningDataModule):
    """Trains on blocks of a source in a shuffled stream, evaluates spans in order, normalises on the device.

    A source of one's own is a dataclass derived from this, with `open` (docs/data.md).

    Raises:
        UserError: for settings that make no sense, and data that cannot be read.
    """

    features: Tensor | None = None
    """The true directions, (G, D) unit rows, when they are known."""

    def __post_init__(self) -> None:
        pl.LightningDataModule.__init__(self)
        super().__post_init__()
        inputs, targets = sides(self.opened.rows)
        rms = self.normalise == "rms"
        self.features = self.opened.features
        self.d_in = inputs.d_in
        """Width of an activation (D)."""
        self.source: dict[str, Any] = inputs.source
        """Provenance of the activations: model, hook, dtype, ..."""
        self.scale = _scale("activations", self.d_in, self.opened.mean_square_norm) if rms else 1.0
        """What activations are multiplied by; with rms E‖x‖² = D after it."""
        self.normalisation = {"kind": self.normalise, "scale": self.scale}
        """The same as plain data, to be kept with each SAE."""
        self.d_out: int | None = None
        """Width of a target. Like the next two, None when there are no targets."""
        self.target_source: dict[str, Any] | None = None
        """Provenance of the targets."""
        self.target_normalisation: dict[str, Any] | None = None
        """The targets' normalisation: a scale of their own."""
        if targets is not None:
            self.d_out, self.target_source = targets.d_in, targets.source
            scale = _scale("targets", targets.d_in, targets.mean_square_norm) if rms else 1.0
            self.target_normalisation = {"kind": self.normalise, "scale": scale}
        blocks = cut(0, self.opened.n_train_rows)
        self._blocks = blocks if self.max_samples is None else sample(blocks, self.max_samples, self.seed)
        self._stream: TrainStream | None = None
        self._resume: dict[str, Any] | None = None

    def declared_by(self) -> type[Source]:
        """The class that says what the source is: those bound below add nothing to it."""
        return next(cls for cls in type(self).__mro__ if cls.__module__ != __name__)

    @property
    def fingerprint(self) -> str:
        """Identity of the training data."""
        return self.opened.rows.fingerprint

    @property
    def n_train_rows(self) -> int:
        """Rows trained on, `max_samples` applied."""
        return self._blocks.rows

    @property
    def n_val_rows(self) -> int:
        """Rows of the validation set."""
        val = self.opened.val
        return val.stop - val.start if val else 0

    def init_sample(self, n: int = 8192) -> Tensor | Pair:
        """Normalised training rows from seeded blocks, the same on every rank: (min(n, all), D) float32."""
        rows = self.opened.rows
        order = np.random.default_rng([self.seed, _INIT_SAMPLE]).permutation(len(self._blocks.starts))
        x_NW = torch.empty(min(n, self.n_train_rows), rows.d_in, dtype=rows.dtype)
        done = 0
        for block in order:
            size = min(int(self._blocks.sizes[block]), len(x_NW) - done)
            if size == 0:
                break
            rows.read(int(self._blocks.starts[block]), x_NW[done : done + size])
            done += size
        return self._normalised(x_NW)

    def train_dataloader(self) -> TrainStream:
        """A new stream, at the position that a checkpoint brought."""
        rank, world = self._place()
        rows = self.opened.rows
        self._stream = TrainStream(rows, self._blocks, self.batch_size, seed=self.seed, rank=rank, world=world)
        if self._resume is not None:
            self._stream.load_state_dict(self._resume)
            self._resume = None
        return self._stream

    def val_dataloader(self) -> SequentialStream | list:
        """All validation rows in order, or no loader."""
        return self._sequential(*self.opened.val) if self.opened.val else []

    def test_dataloader(self) -> SequentialStream | list:
        """The validation rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> SequentialStream:
        """All rows in order, up to `predict_rows`."""
        rows = self.opened.rows
        return self._sequential(rows, 0, min(self.predict_rows or rows.n_rows, rows.n_rows))

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
        return SequentialStream(rows, start, stop, self.val_batch_size or self.batch_size, *self._place())

    def _normalised(self, x_BW: Tensor) -> Tensor | Pair:
        rows = self.opened.rows
        if not isinstance(rows, PairedRows) or self.target_normalisation is None:
            return _scaled(x_BW, self.scale)
        x_BD, y_BD = rows.split(x_BW)
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


class ActivationDataModule(ActivationSource, RowsDataModule):
    """Activations from a folder of shards (`saelight shards harvest`), for transcoders paired with those of another."""


class SyntheticDataModule(SyntheticSource, RowsDataModule):
    """Sparse combinations of known directions, x = Σ a_i g_i + noise, made on demand (nothing is stored)."""
