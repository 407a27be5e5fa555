"""The best few of each of many owners, kept while candidates stream past: a bounded table, updated many owners at a time.

Shapes: O owners, K kept of each, N candidates, T owners that candidates are for.
"""

import itertools
from typing import Any

import numpy as np

from saelight.latents.latents_format import empty

_BLOCK = 4096  # owners whose rows are merged at a time


class BestKept:
    """For each owner the K candidates of the highest score, best first; of equals, those that came first.

    Args:
        columns: What is kept of each beside its score: the dtype, and the shape of one.
    """

    def __init__(self, owners: int, kept: int, columns: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        self.scores_OK = np.full((owners, kept), -np.inf, dtype=np.float32)
        self.columns = {
            name: np.full((owners, kept, *shape), empty(dtype), dtype=dtype) for name, (dtype, shape) in columns.items()
        }

    def chosen(self, owners_N: np.ndarray, scores_N: np.ndarray) -> np.ndarray:
        """Which of the candidates are to be put in: their places, by owner and, of one owner, the best first."""
        admitted = np.flatnonzero(scores_N > self.scores_OK[owners_N, -1])
        order = admitted[np.lexsort((-scores_N[admitted], owners_N[admitted]))]
        return order[ranks(owners_N[order]) < self.scores_OK.shape[1]]

    def put(self, owners_N: np.ndarray, scores_N: np.ndarray, **columns: np.ndarray) -> None:
        """Put in candidates, in the order of `chosen`."""
        owners_T, starts_T = np.unique(owners_N, return_index=True)
        bounds = [*starts_T[::_BLOCK], len(owners_N)]
        for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
            touched_T = owners_T[i * _BLOCK : (i + 1) * _BLOCK]
            rank_N = ranks(owners_N[start:stop])
            row_N = np.searchsorted(touched_T, owners_N[start:stop])
            self._merge(
                touched_T,
                (row_N, rank_N),
                scores_N[start:stop],
                {name: column[start:stop] for name, column in columns.items()},
            )

    def _merge(self, touched_T: np.ndarray, place: Any, scores_N: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        kept = self.scores_OK.shape[1]
        width = 1 + int(place[1].max())

        def beside(old_TK: np.ndarray, new_N: np.ndarray, fill: float) -> np.ndarray:
            new_TK = np.full((len(touched_T), width, *old_TK.shape[2:]), fill, dtype=old_TK.dtype)
            new_TK[place] = new_N
            return np.concatenate([old_TK, new_TK], axis=1)

        scores = beside(self.scores_OK[touched_T], scores_N, -np.inf)
        order_TK = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
        rows_T1 = np.arange(len(touched_T))[:, None]
        self.scores_OK[touched_T] = scores[rows_T1, order_TK]
        for name, column in self.columns.items():
            column[touched_T] = beside(column[touched_T], columns[name], 0)[rows_T1, order_TK]

    def drop(self, owners_N: np.ndarray) -> None:
        """Forget all that is kept of these owners."""
        self.scores_OK[owners_N] = -np.inf
        for column in self.columns.values():
            column[owners_N] = empty(column.dtype.name)


def ranks(owners_N: np.ndarray) -> np.ndarray:
    """How many of the same owner stand before each, where those of one owner lie together."""
    if not len(owners_N):
        return np.empty(0, dtype=np.int64)
    begins = np.flatnonzero(np.append(True, owners_N[1:] != owners_N[:-1]))
    sizes = np.diff(np.append(begins, len(owners_N)))
    return np.arange(len(owners_N)) - np.repeat(begins, sizes)
