"""A folder of shards in some readable lines: what `saelight shards info` prints."""

import math
from pathlib import Path

from saelight.data.dropped import in_words
from saelight.data.row_statistics import dimensions, mean_over_spread, norms_of, read_norms, read_sample
from saelight.data.shards.reader import ShardedRows

_QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)


def summary(path: str | Path) -> str:
    """What a folder of shards holds, how its norms are spread, and what was dropped on the way to it.

    Raises `UserError` when it cannot be opened.
    """
    rows = ShardedRows(path)
    meta = rows.metadata
    x_ND = read_sample(rows, 0, rows.n_rows)
    norms = read_norms(rows, 0, rows.n_rows) or norms_of(x_ND, rows.n_rows)
    spread = mean_over_spread(rows.sums.sum_of_squares, rows.sums.sum_D, rows.sums.rows)
    flat = dimensions(x_ND)
    quantiles = [f"{q:.4g} %: {norms.quantile(q / 100):,.4g}" for q in (100 * q for q in _QUANTILES)]
    long, share = norms.above(10)
    lines = {
        "model": meta["model"],
        "hook": meta["hook"],
        "rows": f"{rows.n_rows:,} × {rows.d_in} {meta['dtype']}",
        "size": f"{sum(entry['bytes'] for entry in meta['shards']) / 1e6:,.1f} MB in {len(meta['shards'])} shards",
        "columns": ", ".join(rows.columns) or "none",
        "rms norm": f"{math.sqrt(rows.mean_square_norm):.4g} (√d_in is {math.sqrt(rows.d_in):.4g})",
        "norms": f"{', '.join(quantiles)}, max: {norms.quantile(1):,.4g} ({norms})",
        "max/median": f"{norms.quantile(1) / norms.median if norms.median else math.nan:,.4g}",
        "Σ‖x‖²": f"{norms.top_share(0.001):.1%} in the top 0.1 % of rows, {norms.top_share(0.01):.1%} in the top 1 %; "
        f"{share:.1%} in the {long:,} above 10 × the median norm",
        "γ": f"{spread:.4g} (‖mean‖ over the standard deviation)",
        "dimensions": f"{flat.constant} constant, {flat.duplicated} duplicated (in a sample of {len(x_ND):,} rows)",
    }
    lines |= {f"dropped ({number})": in_words(report) for number, report in enumerate(meta.get("dropped", []), 1)}
    lines |= {key: value for key, value in meta["source"].items() if value not in (None, [], "")}
    return "\n".join(f"{key:<13} {value}" for key, value in lines.items())
