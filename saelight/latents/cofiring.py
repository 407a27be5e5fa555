"""The latents that fire together, counted on a uniform sample of rows that is as large as a fixed room holds.

Shapes: F d_sae, S sampled rows, E entries.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from saelight.latents.best_kept import ranks
from saelight.latents.firings import Firings, chances

ENTRIES = 1 << 20
"""Latents of all sampled rows together: 4 MB."""
_PAIRS = 1 << 26
"""Pairs of latents on a row, over all sampled rows: what counting them takes, a second or two."""
_AT_ONCE = 1 << 22
"""Pairs counted at a time: 100 MB."""
_LEAST = 2
"""Rows at which two latents have to fire both, to be said to fire together."""


class Together(NamedTuple):
    """By latent (F,): the sampled rows at which it fires, and the latents that fire with it, with how often."""

    fired_F: np.ndarray
    latents_FN: np.ndarray
    counts_FN: np.ndarray


class RowSample:
    """Rows with the latents that fire on them. Each row stays with the same probability, which is halved as often as it
    takes for all to fit; which rows those are is a hash of their numbers."""

    def __init__(self, d_sae: int, seed: int) -> None:
        self.d_sae, self.seed = d_sae, seed
        self.share = 1.0
        self.chances_S = np.empty(0, dtype=np.float32)
        self.sizes_S = np.empty(0, dtype=np.int32)
        self.latents_E = np.empty(0, dtype=np.int32)

    def add(self, found: Firings, first_row: int, n_rows: int) -> None:
        """Take from `n_rows` rows, of which the first has this number in the data."""
        chances_B = chances(self.seed, 0, np.arange(first_row, first_row + n_rows))
        taken_B = chances_B < self.share
        taken_E = np.flatnonzero(taken_B[found.rows_E])
        rows_E = found.rows_E[taken_E]
        order = np.argsort(rows_E, kind="stable")
        sizes_B = np.bincount(rows_E, minlength=n_rows)
        self.chances_S = np.append(self.chances_S, chances_B[taken_B])
        self.sizes_S = np.append(self.sizes_S, sizes_B[taken_B].astype(np.int32))
        self.latents_E = np.append(self.latents_E, found.latents_E[taken_E[order]].astype(np.int32))
        while len(self.latents_E) > ENTRIES or np.square(self.sizes_S, dtype=np.int64).sum() > _PAIRS:
            self.share /= 2
            stays_S = self.chances_S < self.share
            self.latents_E = self.latents_E[np.repeat(stays_S, self.sizes_S)]
            self.chances_S, self.sizes_S = self.chances_S[stays_S], self.sizes_S[stays_S]

    def together(self, n: int) -> Together:
        """For each latent the n others with the largest cosine of the firing patterns, n_ij / √(n_i n_j)."""
        starts = np.append(0, np.cumsum(self.sizes_S, dtype=np.int64))
        ones = np.ones(len(self.latents_E), dtype=np.int32)
        fires_SF = sparse.csr_array((ones, self.latents_E, starts), shape=(len(self.sizes_S), self.d_sae))
        fires_FS = fires_SF.T.tocsr()
        fired_F = np.diff(fires_FS.indptr).astype(np.int32)
        latents_FN = np.full((self.d_sae, n), -1, dtype=np.int32)
        counts_FN = np.zeros((self.d_sae, n), dtype=np.int32)
        pairs_F = fires_FS @ self.sizes_S.astype(np.int64)
        blocks = np.cumsum(pairs_F) // _AT_ONCE
        for block in np.unique(blocks):
            start, stop = np.searchsorted(blocks, [block, block + 1])
            both = (fires_FS[start:stop] @ fires_SF).tocoo()
            first, second, count = both.coords[0] + start, both.coords[1], both.data
            other = np.flatnonzero((first != second) & (count >= _LEAST))
            first, second, count = first[other], second[other], count[other]
            cosine = count / np.sqrt(fired_F[first].astype(float) * fired_F[second])
            order = np.lexsort((second, -cosine, first))
            order = order[ranks(first[order]) < n]
            place = first[order], ranks(first[order])
            latents_FN[place], counts_FN[place] = second[order], count[order]
        return Together(fired_F, latents_FN, counts_FN)
