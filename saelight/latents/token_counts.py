"""The tokens on which each latent fires most, of however many there are, by a bounded sketch.

Shapes: F d_sae, M counters, E entries, U pairs of a latent and a token, T latents that a piece is of.
"""

import itertools

import numpy as np

from saelight.latents.best_kept import ranks

COUNTERS = 24
_BLOCK = 4096  # latents merged at a time
_TOKEN_BITS = 32


class TokenCounts:
    """M counters a latent. A count is too low by the latent's `error` at most, which is at most its firings / (M + 1); a
    token on which it fires more often than that has a counter.

    Source: Misra & Gries, "Finding repeated elements" (1982), a piece of the stream at a time: Agarwal et al., "Mergeable
    summaries" (2012), theorem 2.1.
    """

    def __init__(self, d_sae: int) -> None:
        self.ids_FM = np.full((d_sae, COUNTERS), -1, dtype=np.int32)
        self.counts_FM = np.zeros((d_sae, COUNTERS), dtype=np.int32)
        self.error_F = np.zeros(d_sae, dtype=np.int32)

    def add(self, latents_E: np.ndarray, tokens_E: np.ndarray) -> None:
        """Count one firing of a latent on a token for each entry."""
        if not len(latents_E):
            return
        keys_U, counts_U = np.unique((latents_E << _TOKEN_BITS) | tokens_E, return_counts=True)
        latents_U, tokens_U = keys_U >> _TOKEN_BITS, (keys_U & ((1 << _TOKEN_BITS) - 1)).astype(np.int32)
        equal_UM = self.ids_FM[latents_U] == tokens_U[:, None]
        known_U = equal_UM.any(1)
        self.counts_FM[latents_U[known_U], equal_UM[known_U].argmax(1)] += counts_U[known_U].astype(np.int32)
        new = np.flatnonzero(~known_U)
        new = new[np.lexsort((-counts_U[new], latents_U[new]))]
        # Of more new ones than there are counters, the first that is not kept decides what all lose.
        new = new[ranks(latents_U[new]) <= COUNTERS]
        latents_T, starts_T = np.unique(latents_U[new], return_index=True)
        bounds = [*starts_T[::_BLOCK], len(new)]
        for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
            part = new[start:stop]
            self._merge(latents_T[i * _BLOCK : (i + 1) * _BLOCK], latents_U[part], tokens_U[part], counts_U[part])

    def _merge(self, latents_T: np.ndarray, latents_N: np.ndarray, tokens_N: np.ndarray, counts_N: np.ndarray) -> None:
        rank_N = ranks(latents_N)
        place = np.searchsorted(latents_T, latents_N), COUNTERS + rank_N
        shape = len(latents_T), COUNTERS + 1 + int(rank_N.max())
        ids, counts = np.full(shape, -1, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        ids[:, :COUNTERS], counts[:, :COUNTERS] = self.ids_FM[latents_T], self.counts_FM[latents_T]
        ids[place], counts[place] = tokens_N, counts_N
        order = np.argsort(-counts, axis=1, kind="stable")[:, : COUNTERS + 1]
        rows_T1 = np.arange(len(latents_T))[:, None]
        ids, counts = ids[rows_T1, order], counts[rows_T1, order]
        lost_T = counts[:, COUNTERS]
        self.error_F[latents_T] += lost_T
        counts = np.maximum(0, counts[:, :COUNTERS] - lost_T[:, None])
        self.counts_FM[latents_T] = counts
        self.ids_FM[latents_T] = np.where(counts > 0, ids[:, :COUNTERS], -1)

    def most(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The n tokens of each latent with the highest counts, and these: int32 (F, n); -1 and 0 where there are fewer."""
        order = np.argsort(-self.counts_FM, axis=1, kind="stable")[:, :n]
        rows = np.arange(len(order))[:, None]
        return self.ids_FM[rows, order], self.counts_FM[rows, order]
