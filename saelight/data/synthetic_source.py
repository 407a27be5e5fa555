"""Synthetic activations as a source: training rows first, validation rows behind them."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from saelight.data.sampled_sums import sampled_sums
from saelight.data.source import Description, Opened, Source, Span
from saelight.data.synthetic import BLOCK, SyntheticRows, SyntheticSettings
from saelight.ranges import LONGEST, Range

_SUMMED = 16 * BLOCK
"""Rows that normalisation is computed from. They are drawn independently: few tell as much as many."""


@dataclass(eq=False)
class SyntheticSource(SyntheticSettings, Source):
    """Sparse combinations of known directions, x = Σ a_i g_i + noise, made on demand (nothing is stored)."""

    rows: Annotated[int, Range(least=1, most=LONGEST)] = 200_000
    """Training rows; an epoch goes through them once."""
    val_rows: Annotated[int, Range(least=0, most=LONGEST)] = 16_384
    """Validation rows, drawn beside the training rows. 0: no validation."""

    def check(self) -> None:
        super().check()
        self._all_rows()

    def open(self) -> Opened:
        rows = self._all_rows()
        val = Span(rows, self.rows, rows.n_rows) if self.val_rows else None
        return Opened(rows, self.rows, val, sampled_sums(rows, self.rows, self.seed, _SUMMED), rows.features)

    def describe(self) -> Description:
        """Widths, rows and bytes, without making a row."""
        return self._description(self._all_rows(), self.rows)

    def identity(self) -> dict[str, Any]:
        """All settings that training depends on: the rows are a function of them."""
        return self._settings(self.evaluation_only)

    def _all_rows(self) -> SyntheticRows:
        shared = {field.name: getattr(self, field.name) for field in fields(SyntheticRows)}
        return SyntheticRows(**shared | {"rows": self.rows + self.val_rows})
