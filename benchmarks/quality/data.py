"""The rows: for every library the same, in the same order, as the model gave them; and those held out.

Shapes: B batch, D d_in, N rows.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import saelight
from saelight import UserError

_HELD_OUT = (0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


@dataclass(frozen=True)
class Data:
    """Shards to learn from, whose last documents are held out, and shards of another text."""

    name: str
    path: Path
    other_path: Path
    tokens: int
    """Rows to learn from."""
    expansion: int = 8
    held_out_rows: int = 500_000
    """At most."""
    measured_rows: int = 100_000
    """Of the rows held out, and of the other text, those that reconstructions are measured on."""

    def module(self, batch: int, seed: int, **settings: object) -> saelight.ActivationDataModule:
        """The rows as saelight trains on them. Raises `UserError` where there are too few."""
        n_rows = _rows(self.path)
        if n_rows < self.tokens + self.measured_rows:
            raise UserError(
                f"{self.path} has {n_rows:,} rows, of which {self.tokens:,} are to be learnt from and at least "
                f"{self.measured_rows:,} held out: harvest more, or lower --tokens"
            )
        # Documents are held out whole: some of the share left over may be needed to have enough to learn from.
        for part in _HELD_OUT:
            module = saelight.ActivationDataModule(
                str(self.path),
                batch_size=batch,
                seed=seed,
                val_fraction=part * (n_rows - self.tokens) / n_rows,
                max_samples=self.tokens,
                **settings,
            )
            if module.n_train_rows == self.tokens and module.n_val_rows >= self.measured_rows:
                return module
        raise UserError(f"{self.path}: its last documents are too long to hold out; harvest more, or lower --tokens")

    @cached_property
    def _raw(self) -> saelight.ActivationDataModule:
        return self.module(2048, 0, normalise="none")

    @property
    def d_in(self) -> int:
        return self._raw.d_in

    @property
    def d_sae(self) -> int:
        return self.expansion * self.d_in

    @cached_property
    def identity(self) -> str:
        """Changes with the rows."""
        parts = (self._raw.fingerprint, _fingerprint(self.other_path), self.held_out_rows, self.measured_rows)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def sample(self) -> Tensor:
        """Rows to learn scales from: (N, D)."""
        return self._raw.init_sample(16_384)

    def training(self, batch: int, seed: int) -> Iterator[Tensor]:
        """All batches of one pass: (B, D) float32."""
        for x_BD in self.module(batch, seed, normalise="none").train_dataloader():
            yield x_BD.float()

    def held_out(self) -> Iterator[Tensor]:
        """Whole documents that nobody learns from, `held_out_rows` at most."""
        yield from _first(self._raw.val_dataloader(), self.held_out_rows)

    def other(self) -> Iterator[Tensor]:
        """Another text's rows, `measured_rows` at most."""
        module = saelight.ActivationDataModule(str(self.other_path), batch_size=2048, val_fraction=0.0, normalise="none")
        yield from _first(module.predict_dataloader(), self.measured_rows)


def _first(batches: Iterator[Tensor], rows: int) -> Iterator[Tensor]:
    for x_BD in batches:
        yield x_BD[:rows].to(torch.float32)
        rows -= len(x_BD)
        if rows <= 0:
            return


def _rows(path: Path) -> int:
    return _opened(path).n_train_rows


def _fingerprint(path: Path) -> str:
    return _opened(path).fingerprint


def _opened(path: Path) -> saelight.ActivationDataModule:
    return saelight.ActivationDataModule(str(path), val_fraction=0.0, normalise="none")
