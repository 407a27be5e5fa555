"""Where a published SAE comes from: what its folder tells beside the weights."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Provenance:
    """Facts that change no number, and travel with an SAE from folder to folder."""

    name: str = "sae"
    seed: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    """Where its activations came from: model, hook, context, …"""
    target_source: dict[str, Any] | None = None
    """The same of a transcoder's targets."""
    training: dict[str, Any] = field(default_factory=dict)
    """How its training ended."""
    versions: dict[str, Any] = field(default_factory=dict)
    """Of what it was trained with."""
    commit: str | None = None
