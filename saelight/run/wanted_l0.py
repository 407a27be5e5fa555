"""The L0 that an SAE was to have, from its config as plain data. Light: no torch."""

from collections.abc import Mapping
from typing import Any


def wanted_l0(config: Mapping[str, Any]) -> float | None:
    """`target_l0` or `k`, of a Matryoshka SAE those of its base; None where nothing asks for an L0."""
    fields = config.get("init_args") or {}
    for name in ("target_l0", "k"):
        if fields.get(name) is not None:
            return float(fields[name])
    base = fields.get("base")
    return wanted_l0(base) if isinstance(base, Mapping) else None
