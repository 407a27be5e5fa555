"""A folder of shards in some readable lines: what `saelight shards info` prints."""

import math
from pathlib import Path

from saelight.data.dropped import in_words
from saelight.data.foreign.opening import open_rows
from saelight.data.row_statistics import dimensions, mean_over_spread, norms_of, read_norms, read_sample
from saelight.data.sampled_sums import sampled_sums
from saelight.data.shards.reader import ShardedRows

_QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)


def summary(path: str | Path) -> str:
    """What stored activations hold, how their norms are spread, and what was dropped on the way to them.

    Raises `UserError` when it cannot be opened.
    """
    rows = open_rows(path)
    known, sums = rows.known, rows.sums or sampled_sums(rows, rows.n_rows, seed=0)
    x_ND = read_sample(rows, 0, rows.n_rows)
    norms = read_norms(rows, 0, rows.n_rows) or norms_of(x_ND, rows.n_rows)
    spread = mean_over_spread(sums.sum_of_squares, sums.sum_D, sums.rows)
    flat = dimensions(x_ND)
    quantiles = [f"{q:.4g} %: {norms.quantile(q / 100):,.4g}" for q in (100 * q for q in _QUANTILES)]
    long, share = norms.above(10)
    lines = {
        "model": known.model,
        "hook": known.hook,
        "rows": f"{rows.n_rows:,} × {rows.d_in} {rows.source['dtype']}",
        "size": f"{known.bytes / 1e6:,.1f} MB in {known.files} {'shards' if isinstance(rows, ShardedRows) else 'files'}",
        "columns": ", ".join(rows.columns) or "none",
        "rms norm": f"{math.sqrt(sums.sum_of_squares / sums.rows):.4g} (√d_in is {math.sqrt(rows.d_in):.4g})",
        "norms": f"{', '.join(quantiles)}, max: {norms.quantile(1):,.4g} ({norms})",
        "max/median": f"{norms.quantile(1) / norms.median if norms.median else math.nan:,.4g}",
        "Σ‖x‖²": f"{norms.top_share(0.001):.1%} in the top 0.1 % of rows, {norms.top_share(0.01):.1%} in the top 1 %; "
        f"{share:.1%} in the {long:,} above 10 × the median norm",
        "γ": f"{spread:.4g} (‖mean‖ over the standard deviation)",
        "dimensions": f"{flat.constant} constant, {flat.duplicated} duplicated (in a sample of {len(x_ND):,} rows)",
    }
    lines |= {f"dropped ({number})": in_words(report) for number, report in enumerate(known.dropped, 1)}
    lines |= {key: value for key, value in known.notes.items() if value not in (None, [], "")}
    return "\n".join(f"{key:<13} {value}" for key, value in lines.items())
