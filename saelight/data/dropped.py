"""What a filter of rows left out: how many, their share of Σ‖x‖², and where, as plain data and in words.

Shapes: N rows, R reasons (the first: the row stays).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

REASONS = ("stays", "special", "position", "token", "norm")
"""Why a row is left out, by number; the first that holds counts. `special`: a token that the tokenizer added;
`position`: one of the first of a window; `token`: one that was listed; `norm`: above the limit, of any hook."""
_PLACES = 64
_BINS = 32


class Dropped:
    """Counts rows as they pass: bounded, whatever the number of rows."""

    def __init__(self, hooks: Iterable[str]) -> None:
        self.counts_R = torch.zeros(len(REASONS), dtype=torch.int64)
        self._squares = {hook: torch.zeros(len(REASONS), dtype=torch.float64) for hook in hooks}
        self._positions = torch.zeros(len(REASONS), _BINS, dtype=torch.int64)
        self._documents = 0
        self._last_document: int | None = None
        self._places: list[dict[str, int]] = []

    def add(self, reasons_N: Tensor, squares: dict[str, Tensor], columns: dict[str, Tensor]) -> None:
        """Count rows: their reasons (int64), each hook's ‖x‖², and what is known of their tokens, (N,) each."""
        self.counts_R += torch.bincount(reasons_N, minlength=len(REASONS))
        for hook, squares_N in squares.items():
            # A value that is not finite would make the shares of all others unknown; no such row is ever written.
            finite_N = torch.where(squares_N.isfinite(), squares_N, 0.0)
            self._squares[hook].index_add_(0, reasons_N, finite_N)
        if "positions" in columns:
            # 0, 1, 2-3, 4-7, …: the number of a position's binary digits.
            bins_N = torch.frexp(columns["positions"].double())[1].long().clamp(0, _BINS - 1)
            cells_N = reasons_N * _BINS + bins_N
            self._positions += torch.bincount(cells_N, minlength=self._positions.numel()).view_as(self._positions)
        long = (reasons_N == REASONS.index("norm")).nonzero().flatten()
        if "document_ids" in columns and len(long):
            documents = torch.unique_consecutive(columns["document_ids"][long])
            self._documents += len(documents) - int(documents[0].item() == self._last_document)
            self._last_document = int(documents[-1])
        for row in long[: _PLACES - len(self._places)].tolist():
            self._places.append({name: int(column[row]) for name, column in columns.items()})

    def state(self) -> dict[str, Any]:
        """All that was counted, to go on from: plain data."""
        return {
            "counts": self.counts_R.tolist(),
            "squares": {hook: squares_R.tolist() for hook, squares_R in self._squares.items()},
            "positions": self._positions.tolist(),
            "documents": self._documents,
            "last_document": self._last_document,
            "places": self._places.copy(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.counts_R = torch.tensor(state["counts"])
        self._squares = {hook: torch.tensor(of, dtype=torch.float64) for hook, of in state["squares"].items()}
        self._positions = torch.tensor(state["positions"])
        self._documents, self._last_document = state["documents"], state["last_document"]
        self._places = list(state["places"])

    def report(self, hook: str) -> dict[str, Any]:
        """All that was counted, as plain data: rows seen and dropped, this hook's share of Σ‖x‖² in them, by reason, the
        places of the first rows beyond the limit, and the documents that they are in."""
        squares_R = self._squares[hook]
        share_R = squares_R / squares_R.sum().clamp_min(torch.finfo(torch.float64).tiny)
        reasons = {
            name: {"rows": int(self.counts_R[r]), "share": float(share_R[r]), "positions": self._histogram(r)}
            for r, name in enumerate(REASONS)
            if r and self.counts_R[r]
        }
        return {
            "rows_seen": int(self.counts_R.sum()),
            "rows_dropped": int(self.counts_R[1:].sum()),
            "share": float(share_R[1:].sum()),
            "reasons": reasons,
            "norm_documents": self._documents,
            "norm_places": self._places,
        }

    def _histogram(self, reason: int) -> dict[str, int]:
        counts = self._positions[reason].tolist()
        names = ["0", "1", *(f"{2 ** (digits - 1)}-{2**digits - 1}" for digits in range(2, _BINS))]
        return {name: count for name, count in zip(names, counts, strict=True) if count}


def in_words(report: Mapping[str, Any]) -> str:
    """A report on one line."""
    parts = []
    for name, of in report["reasons"].items():
        positions = sorted(of["positions"].items(), key=lambda item: -item[1])[:4]
        where = f", at positions {', '.join(f'{p} ({n:,})' for p, n in positions)}" if positions else ""
        parts.append(f"{name} {of['rows']:,} ({of['share']:.2%} of Σ‖x‖²{where})")
    limit = "none" if report["limit"] is None else f"{report['limit']:,.4g}"
    return (
        f"{report['rows_dropped']:,} of {report['rows_seen']:,} rows, {report['share']:.2%} of Σ‖x‖²; norm limit {limit}"
        + "".join(f"; {part}" for part in parts)
    )
