"""Activations with known ground truth: sparse combinations of random directions, made on demand.

    x = Σ_i a_i g_i + noise

over the features i that fire, with unit directions g_i and magnitudes a_i = |N(mean, std)|. Feature i fires with
probability p_i ∝ (i + 1)^-zipf, Σ p_i = mean_l0. Correlated features share a Gaussian factor within their group.

Shapes: N rows, D d_in, G features.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor

from saelight.errors import UserError
from saelight.ranges import SEED, Range, check_fields

BLOCK = 512
_DIRECTIONS, _ROWS = 0, 1
_MANY_FEATURES = 4096


@dataclass(eq=False)
class SyntheticSettings:
    """What decides the rows, beside how many there are and a seed."""

    d_in: Annotated[int, Range(least=1, most=2**20)] = 64
    """Width of an activation (D)."""
    n_features: Annotated[int, Range(least=1, most=2**24)] = 256
    """True directions (G): random unit vectors, the ground truth that MMCS compares with."""
    mean_l0: Annotated[float, Range(above=0)] = 8.0
    """Features that fire in a row, on average."""
    zipf_exponent: Annotated[float, Range(least=0, most=100)] = 0.5
    """How fast frequencies fall with rank: p_i ∝ (i + 1)^-zipf_exponent. 0 makes all equal."""
    magnitude_mean: Annotated[float, Range(least=0, most=1e6)] = 1.0
    """Mean of the normal law whose absolute value is a firing feature's magnitude."""
    magnitude_std: Annotated[float, Range(least=0, most=1e6)] = 0.25
    """Standard deviation of that law."""
    correlation: Annotated[float, Range(least=0, below=1)] = 0.0
    """Correlation, in [0, 1), of the Gaussian factors that make features of one group fire together. Frequencies stay as
    they are."""
    group_size: Annotated[int, Range(least=1, most=2**24)] = 8
    """Consecutive features that form a group; matters with `correlation` only."""
    noise: Annotated[float, Range(least=0, most=1e6)] = 0.0
    """Standard deviation of Gaussian noise on each coordinate."""


@dataclass(eq=False, kw_only=True)
class SyntheticRows(SyntheticSettings):
    """Rows that are a pure function of these settings. Raises `UserError` for settings that make no sense."""

    rows: Annotated[int, Range(least=1)]
    """Rows in all (N)."""
    seed: Annotated[int, SEED] = 0
    """Seed of directions and rows."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if self.mean_l0 > self.n_features:
            raise UserError(f"data.mean_l0 must be at most n_features = {self.n_features}, got {self.mean_l0}")

    @property
    def n_rows(self) -> int:
        return self.rows

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def source(self) -> dict:
        return {"model": "synthetic", "hook": None, "dtype": "float32"} | asdict(self)

    @property
    def fingerprint(self) -> str:
        """A hash over the settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def features(self) -> Tensor:
        """The true directions: (G, D) float32, unit rows."""
        rng = np.random.default_rng([self.seed, _DIRECTIONS])
        return F.normalize(torch.from_numpy(rng.standard_normal((self.n_features, self.d_in), dtype=np.float32)))

    @cached_property
    def frequencies(self) -> np.ndarray:
        """p_i: (G,) float64, at most 1, summing to mean_l0."""
        weights = np.arange(1, self.n_features + 1, dtype=np.float64) ** -self.zipf_exponent
        # Weights fall, so those that reach 1 are the first ones; the others share what is left.
        for certain in range(self.n_features):
            p = weights[certain:] * (max(0.0, self.mean_l0 - certain) / weights[certain:].sum())
            if p[0] <= 1:
                return np.concatenate([np.ones(certain), p])
        return np.ones(self.n_features)

    @cached_property
    def _thresholds(self) -> np.ndarray:
        return ndtri(self.frequencies).astype(np.float32)

    @cached_property
    def _rates(self) -> np.ndarray:
        return -np.log1p(-np.minimum(self.frequencies, 1 - 1e-16))

    @cached_property
    def _cached_block(self) -> Callable[[int], tuple[Tensor, np.ndarray, np.ndarray]]:
        return lru_cache(4)(self._block)

    def read(self, start: int, out: Tensor) -> None:
        """Fill `out` (n, D) with rows [start, start + n)."""
        done = 0
        while done < len(out):
            block, first = divmod(start + done, BLOCK)
            piece = self._cached_block(block)[0][first : first + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)

    def active(self, start: int, n: int) -> Tensor:
        """Which features fire in rows [start, start + n): bool (n, G)."""
        active_NG = torch.zeros(n, self.n_features, dtype=torch.bool)
        for block in range(start // BLOCK, -(-(start + n) // BLOCK)):
            _, row, feature = self._cached_block(block)
            row = row + block * BLOCK - start
            inside = (row >= 0) & (row < n)
            active_NG[row[inside], feature[inside]] = True
        return active_NG

    def will_need(self, start: int, n: int) -> None:
        """Nothing to read ahead."""

    def where(self, row: int) -> str:
        return f"synthetic row {row}"

    def _block(self, block: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Rows [block * BLOCK, (block + 1) * BLOCK), (BLOCK, D), and the pairs of row and feature that make them."""
        rng = np.random.default_rng([self.seed, _ROWS, block])
        many = self.n_features > _MANY_FEATURES and not self.correlation
        row, feature = self._fire_sparsely(rng) if many else self._fire(rng)
        size = np.abs(rng.normal(self.magnitude_mean, self.magnitude_std, len(row))).astype(np.float32)
        offsets = np.searchsorted(row, np.arange(BLOCK))
        # A gather and a sum per row: sparse, and without the thread-dependent rounding of a matrix product.
        x_ND = F.embedding_bag(
            torch.from_numpy(feature),
            self.features,
            torch.from_numpy(offsets),
            mode="sum",
            per_sample_weights=torch.from_numpy(size),
        )
        if self.noise:
            x_ND += self.noise * torch.from_numpy(rng.standard_normal((BLOCK, self.d_in), dtype=np.float32))
        return x_ND, row, feature

    def _fire(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What fires in a block, sorted by row, from one normal number per row and feature."""
        z_NG = rng.standard_normal((BLOCK, self.n_features), dtype=np.float32)
        if self.correlation:
            group = np.arange(self.n_features) // self.group_size
            shared = rng.standard_normal((BLOCK, group[-1] + 1), dtype=np.float32)
            c = np.float32(self.correlation)
            z_NG = np.sqrt(c) * shared[:, group] + np.sqrt(1 - c) * z_NG
        # <= and not <: a feature with p = 1 has threshold infinity.
        row, feature = np.nonzero(z_NG <= self._thresholds)
        return row, feature

    def _fire_sparsely(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The same law for independent features, in time that grows with what fires: 50 times faster at 16,384 features.

        A feature fires where a Poisson variable of rate -log(1 - p) is not 0. Its sum over the block is Poisson too, and
        falls on rows at random.
        """
        hits_G = rng.poisson(BLOCK * self._rates)
        feature = np.repeat(np.arange(self.n_features), hits_G)
        row = rng.integers(0, BLOCK, len(feature))
        return np.divmod(np.unique(row * self.n_features + feature), self.n_features)

    def __getstate__(self) -> dict:
        return asdict(self)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
