"""Which SAEs of a sweep to take, and whether another sweep's are better. Light: no torch."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from saelight.errors import UserError, did_you_mean
from saelight.files import table
from saelight.run.metric_names import LARGER_IS_BETTER
from saelight.sweep.show.fronts import Place, at, front

DENSER = 1.05
"""An SAE is taken for an L0 that it exceeds by no more than this factor: as `target_l0` is met."""

Row = Mapping[str, Any]


def best(rows: Sequence[Row], metric: str = "fvu", at_l0: float | None = None) -> str:
    """A table of the best SAE of each variant, the best of all first.

    Args:
        rows: As `collect` gives them.
        metric: What is compared, a metric of a validation.
        at_l0: Only SAEs that are at most this dense (with 5 % grace). None: of each variant its whole front of L0 and
            `metric`.

    Raises:
        UserError: Nothing has finished, the metric is not known, or no SAE is that sparse.
    """
    finished = [row for row in rows if row["state"] == "finished"]
    if not finished:
        raise UserError(f"none of the {len(rows)} SAEs has finished; ask again when one has")
    known = dict.fromkeys(key for row in finished for key in row["metrics"])
    if metric not in known:
        raise UserError(f"no metric {metric!r}{did_you_mean(metric, list(known))}; there are {', '.join(known)}")
    sign = -1 if metric in LARGER_IS_BETTER else 1
    measured = [row for row in finished if _number(row, metric) is not None and _number(row, "l0") is not None]
    if at_l0 is not None:
        sparse = [row for row in measured if row["metrics"]["l0"] <= DENSER * at_l0]
        if not sparse:
            sparsest = min((row["metrics"]["l0"] for row in measured), default=math.nan)
            raise UserError(f"no finished SAE has an L0 of at most {at_l0:g}; the sparsest has {sparsest:.1f}")
        measured = [min(group, key=lambda row: sign * row["metrics"][metric]) for group in _by_variant(sparse).values()]
    else:
        fronts = _by_variant(measured).values()
        measured = [
            group[i] for group in fronts for i in front([(r["metrics"]["l0"], sign * r["metrics"][metric]) for r in group])
        ]
    shown = sorted(measured, key=lambda row: (sign * row["metrics"][metric], row["metrics"]["l0"]))
    extra = [] if metric == "fvu" else [metric]
    lines = [["name", "variant", "d_sae", "L0", "FVU", *extra, "dead %", "folder"]]
    for row in shown:
        numbers = [_text(_number(row, key)) for key in ("fvu", *extra)]
        dead = _number(row, "dead")
        lines.append(
            [
                row["name"],
                row["variant"],
                f"{row['d_sae']:,}",
                f"{row['metrics']['l0']:.1f}",
                *numbers,
                "-" if dead is None else f"{100 * dead:.1f}",
                row["folder"] or "-",
            ]
        )
    return table(lines, left=(0, 1, len(lines[0]) - 1))


def compare(first: Sequence[Row], second: Sequence[Row], names: tuple[str, str] = ("A", "B")) -> str:
    """A table of two sweeps' fronts: for each variant that both have, FVU at the same L0s, and the second's share of the
    first's.

    L0s are those of both fronts' points where the two overlap; FVU is read off between points (`fronts.at`).

    Raises:
        UserError: No variant has finished points with an L0 and an FVU in both.
    """
    sides = [_places(first), _places(second)]
    lines: list[list[str]] = []
    for name in sides[0]:
        if name not in sides[1]:
            continue
        places = [side[name] for side in sides]
        ratios = []
        for l0 in sorted({places_[i][0] for places_ in places for i in front(places_, tie=0.05)}):
            here = [at(side, l0) for side in places]
            if here[0] is not None and here[1] is not None and here[0].exact and here[1].exact:
                ratios.append(here[1].fvu / here[0].fvu)
                lines.append([name, f"{l0:.1f}", f"{here[0].fvu:.4f}", f"{here[1].fvu:.4f}", f"{ratios[-1]:.3f}"])
        if len(ratios) > 1:
            lines.append([name, "mean", "", "", f"{geometric_mean(ratios):.3f}"])
    if not lines:
        raise UserError(f"{names[0]} and {names[1]} have no variant with finished SAEs of like L0: nothing can be compared")
    return table([["variant", "L0", f"FVU of {names[0]}", f"FVU of {names[1]}", "ratio"], *lines], left=(0,))


def _by_variant(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["variant"]].append(row)
    return groups


def _places(rows: Iterable[Row]) -> dict[str, list[Place]]:
    """By variant: L0 and FVU of its finished SAEs, where they can be compared."""
    found: dict[str, list[Place]] = defaultdict(list)
    for row in rows:
        l0, fvu = _number(row, "l0"), _number(row, "fvu")
        if row["state"] == "finished" and l0 and fvu and l0 > 0 and fvu > 0:
            found[row["variant"]].append((l0, fvu))
    return found


def _number(row: Row, key: str) -> float | None:
    value = row["metrics"].get(key)
    return value if value is not None and math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
