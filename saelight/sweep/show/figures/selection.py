"""What the figures read from the rows of a sweep's results: one dict per point (docs/sweeps.md)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from saelight.hook_names import short_model

Row = Mapping[str, Any]


def number(values: Mapping[str, Any] | None, key: str) -> float | None:
    """`values[key]` where it is a finite number, else None: metrics may be missing, null or (before JSON) NaN."""
    value = (values or {}).get(key)
    return value if is_number(value) and math.isfinite(value) else None


def is_number(value: Any) -> TypeGuard[float]:
    """True for ints and floats; booleans are choices, not quantities."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def variant(row: Row) -> str:
    """The SAE's class, without its module."""
    return row["config"]["class_path"].rpartition(".")[2]


def variants(rows: Iterable[Row]) -> list[str]:
    """The variants in the order of the sweep."""
    return list(dict.fromkeys(map(variant, rows)))


def width(row: Row) -> tuple[str, float] | None:
    """The dictionary's width, as ("d_sae", latents) or ("expansion", multiple of d_in), whichever the point sets."""
    fields = row["config"].get("init_args") or {}
    return next(((key, fields[key]) for key in ("d_sae", "expansion") if number(fields, key)), None)


def finished(row: Row) -> bool:
    """Whether the point was trained to its end."""
    return row["state"] == "finished"


def setting(row: Row, key: str) -> Any:
    """A point's value of a dotted setting: what the sweep set, or the SAE's own default; None if it has no such setting."""
    if key in row["settings"]:
        return row["settings"][key]
    scope, *path = key.split(".")
    value: Any = row["config"].get("init_args") if scope == "sae" else None
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def about(rows: Sequence[Row]) -> str:
    """What all these points have in common, in words: the model and hook of the activations, tokens and width."""
    model, hook, tokens, d_sae = (_common(rows, key) for key in ("model", "hook", "tokens", "d_sae"))
    known = [
        model and short_model(str(model)),
        hook,
        tokens and f"{tokens:,} tokens",
        d_sae and f"{d_sae:,} latents",
    ]
    return " · ".join(filter(None, known))


def _common(rows: Sequence[Row], key: str) -> Any:
    """The one value that all finished points have."""
    values = {row.get(key) for row in rows if finished(row)}
    return values.pop() if len(values) == 1 else None
