"""Sources bound to Lightning: the data modules.

Everything a model needs to be built (`d_in`, `normalisation`, ...) is known after `__init__`.

Shapes: B batch, D d_in, W width of a row (d_in, or d_in + d_out), N rows, G true features.
"""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from saelight.data.activation_source import ActivationSource
from saelight.data.model_source import ModelSource
from saelight.data.moments import Sums, fit_normalisation
from saelight.data.pairs import Pair, PairedRows
from saelight.data.sampled_sums import sampled_sums
from saelight.data.source import RankRows, Rows, Source, sides
from saelight.data.stream.loaders import SequentialStream, TrainStream
from saelight.data.stream.order import BLOCK, WINDOW, Blocks, cut, sample
from saelight.data.synthetic_source import SyntheticSource
from saelight.ops.normalisation import Normalisation

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
        self.features = self.opened.features
        self.d_in = inputs.d_in
        """Width of an activation (D)."""
        self.source: dict[str, Any] = inputs.source
        """Provenance of the activations: model, hook, dtype, ..."""
        self.normalisation = self._fitted("activations", inputs, self.opened.sums)
        """What is done to every activation; it is kept with each SAE."""
        self.d_out: int | None = None
        """Width of a target. Like the next two, None when there are no targets."""
        self.target_source: dict[str, Any] | None = None
        """Provenance of the targets."""
        self.target_normalisation: Normalisation | None = None
        """The same for targets: a mean and a scale of their own."""
        if targets is not None:
            self.d_out, self.target_source = targets.d_in, targets.source
            self.target_normalisation = self._fitted("targets", targets, self.opened.target_sums)
        self._blocks = self._chosen(self.opened.n_train_rows)
        self._stream: TrainStream | None = None
        self._resume: dict[str, Any] | None = None
        self._own: dict[tuple[int, int], RankRows] = {}

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
        rows, first = self.opened.rows, self.opened.first_rows
        blocks = self._blocks if first is None else cut(0, min(first, self.n_train_rows))
        order = np.random.default_rng([self.seed, _INIT_SAMPLE]).permutation(len(blocks.starts))
        x_NW = torch.empty(min(n, blocks.rows), rows.d_in, dtype=rows.dtype)
        done = 0
        for block in order:
            size = min(int(blocks.sizes[block]), len(x_NW) - done)
            if size == 0:
                break
            rows.read(int(blocks.starts[block]), x_NW[done : done + size])
            done += size
        return self._normalised(x_NW)

    def train_dataloader(self) -> TrainStream:
        """A new stream, at the position that a checkpoint brought."""
        rank, world = self._place()
        rows, blocks, buffer, bookmarks = self.opened.rows, self._blocks, self.opened.buffer, None
        if (own := self._own_rows()) is not None:
            rows, blocks, bookmarks = own.rows, cut(0, own.n_rows), own.bookmarks
        self._stream = TrainStream(
            rows,
            blocks,
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world=world,
            window=WINDOW if buffer is None else -(-buffer // BLOCK),
            in_order=buffer is not None,
            bookmarks=bookmarks,
            device=self.gathers_on(),
        )
        if self._resume is not None:
            self._stream.load_state_dict(self._resume)
            self._resume = None
        if bookmarks is not None:
            bookmarks.begin()
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
        """Where the next training loader starts. Raises `UserError` where the data have changed under it."""
        self._resume = state_dict
        own, (rank, world) = self._own_rows(), self._place()
        is_this_order = state_dict.get("seed") == self.seed and len(there := state_dict.get("bookmarks", ())) == world
        if own is not None and is_this_order:
            own.bookmarks.check(there[rank])

    def teardown(self, stage: str) -> None:
        """Training has ended: nothing more is read for it."""
        if stage == "fit" and self._stream is not None:
            self._stream.close()

    def on_exception(self, exception: BaseException) -> None:
        """The same of training that ends early."""
        self.teardown("fit")

    def _chosen(self, n_rows: int) -> Blocks:
        """The blocks of so many rows, or those of `max_samples` of them: of rows in order the first."""
        blocks = cut(0, n_rows)
        if self.max_samples is None:
            return blocks
        in_order = self.opened.buffer is not None
        return cut(0, min(self.max_samples, n_rows)) if in_order else sample(blocks, self.max_samples, self.seed)

    def _sequential(self, rows: Rows, start: int, stop: int) -> SequentialStream:
        device, size = self.gathers_on(), self.val_batch_size or self.batch_size
        pinned = device is not None and device.type == "cuda"
        return SequentialStream(rows, start, stop, size, *self._place(), pinned=pinned)

    def _fitted(self, what: str, rows: Rows, sums: Sums | None) -> Normalisation:
        if self.normalise == "none":
            return Normalisation()
        sums = sampled_sums(rows, self.opened.n_train_rows, self.seed) if sums is None else sums
        return fit_normalisation(self.normalise, sums, what)

    def _normalised(self, x_BW: Tensor) -> Tensor | Pair:
        rows = self.opened.rows
        if not isinstance(rows, PairedRows) or self.target_normalisation is None:
            return self.normalisation(x_BW)
        x_BD, y_BD = rows.split(x_BW)
        return Pair(self.normalisation(x_BD), self.target_normalisation(y_BD))

    def gathers_on(self) -> torch.device | None:
        """The device that gathers training's batches, for itself: the trainer's, if it is a CUDA device. None: the host."""
        device = self.trainer.strategy.root_device if self.trainer is not None else None
        return device if device is not None and device.type == "cuda" else None

    def _own_rows(self) -> RankRows | None:
        """This rank's own rows, where it has such."""
        if self.opened.of_rank is None:
            return None
        place = self._place()
        if place not in self._own:
            self._own[place] = self.opened.of_rank(*place)
        return self._own[place]

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


class ActivationDataModule(ActivationSource, RowsDataModule):
    """Activations from disk: a folder of shards (`saelight shards harvest`) or what another tool wrote (docs/data.md), for
    transcoders paired with those of another hook."""


class ModelDataModule(ModelSource, RowsDataModule):
    """Activations straight from a model that reads text while SAEs train; of two hooks, pairs for transcoders."""


class SyntheticDataModule(SyntheticSource, RowsDataModule):
    """Sparse combinations of known directions, x = Σ a_i g_i + noise, made on demand (nothing is stored)."""
