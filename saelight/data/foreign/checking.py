"""Whether foreign activations can be trained on to the end: what nobody has written checksums of."""

import torch

from saelight.bars import bar
from saelight.data.finite import first_non_finite
from saelight.data.foreign.foreign_rows import ForeignRows, decreasing
from saelight.data.shards.reader import DOCUMENT_IDS, first_decrease
from saelight.errors import UserError

_ROWS = 8192


def check(rows: ForeignRows) -> str:
    """Read all rows. Returns what was checked, in a line. Raises `UserError` naming the first row that is not finite, or
    whose document comes before that of the row above."""
    last: int | None = None
    with bar(total=rows.n_rows, unit=" rows", desc="verify", delay=2) as progress:
        for start in range(0, rows.n_rows, _ROWS):
            x_ND = torch.empty(min(_ROWS, rows.n_rows - start), rows.d_in, dtype=rows.dtype)
            rows.read(start, x_ND)
            if (bad := first_non_finite(x_ND)) is not None:
                raise UserError(
                    f"NaN or infinite activations: {rows.where(start + bad)}; write them again without, or as float32 where "
                    "float64 goes beyond it"
                )
            if DOCUMENT_IDS in rows.columns:
                ids_N = rows.column(DOCUMENT_IDS, start, len(x_ND))
                if (down := first_decrease(ids_N, last)) is not None:
                    raise UserError(decreasing(rows.where(start + down)))
                last = int(ids_N[-1])
            progress.update(len(x_ND))
    files = f"{rows.known.files} file{'s' * (rows.known.files != 1)}"
    return f"{rows.path}: {files}, {rows.n_rows:,} rows: all values are finite (there are no checksums)"
