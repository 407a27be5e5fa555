"""The tokens around rows, cut from the data's columns in one pass over these: activations are not read again.

Shapes: N contexts, W tokens of one.
"""

from typing import Any

import numpy as np

from saelight.data.source import Rows
from saelight.latents import latents_format as layout
from saelight.latents.windowed_rows import begins, columns

_BLOCK = 1 << 18  # rows whose columns are in memory
_CONTEXTS = 1 << 16  # contexts cut at a time
_OFFSETS_W = np.arange(-layout.BEFORE, layout.AFTER + 1)


def cut(rows: Rows, n_rows: int, at: np.ndarray, out: dict[str, Any]) -> None:
    """Fill in what is known of the windows around rows of the data.

    Args:
        n_rows: Rows of the data that were gone through.
        at: Their numbers (N,), -1 for none.
        out: What to fill, flat: `documents`, `positions`, `gaps` (N,), and with token ids `tokens` (N, W).
    """
    order = np.argsort(at, kind="stable")
    ordered = at[order]
    for start in range(0, n_rows, _BLOCK):
        low, high = np.searchsorted(ordered, [start, start + _BLOCK])
        if low == high:
            continue
        first = max(0, start - layout.BEFORE)
        stop = min(n_rows, start + _BLOCK + layout.AFTER)
        known = columns(rows, first, stop - first)
        windows = np.cumsum(begins(first, stop - first, known))
        for part in range(low, high, _CONTEXTS):
            places = order[part : min(high, part + _CONTEXTS)]
            peaks = at[places] - first
            near = peaks[:, None] + _OFFSETS_W
            inside = (near >= 0) & (near < stop - first)
            near = np.clip(near, 0, stop - first - 1)
            inside &= windows[near] == windows[peaks][:, None]
            if known.document_ids is not None:
                out["documents"][places] = known.document_ids[peaks]
            if known.positions is not None:
                out["positions"][places] = known.positions[peaks]
                steps = np.diff(known.positions[near], axis=1) != 1
                gaps = steps & inside[:, 1:] & inside[:, :-1]
                out["gaps"][places] = gaps @ (1 << np.arange(1, layout.WINDOW))
            else:
                out["gaps"][places] = 0
            if known.token_ids is not None:
                out["tokens"][places] = np.where(inside, known.token_ids[near], -1)
