"""Where an FVU is not what most tokens have. Light: no torch."""

from collections.abc import Mapping

MARK = "*"
NOTE = f"{MARK} the FVU over all tokens and that of the median token differ by more than a factor 2 (docs/metrics.md)"
_FACTOR, _LEAST = 2.0, 1e-8  # the median is told apart from there on


def disagrees(metrics: Mapping[str, float | None]) -> bool:
    """Whether the FVU over all tokens and the median of the tokens' own differ by more than a factor 2, above rounding."""
    fvu, median = metrics.get("fvu"), metrics.get("fvu_median")
    if fvu is None or median is None:
        return False
    return max(fvu, median) > _FACTOR * max(min(fvu, median), _LEAST)
