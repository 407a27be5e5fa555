"""Where a published SAE comes from: what its folder tells beside the weights."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

_SHOWN = (("l0", "L0", 1), ("fvu", "FVU", 4))
"""Of the metrics, in a `repr`: key, word, digits."""


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
    """How its training ended, and its last `metrics`."""
    versions: dict[str, Any] = field(default_factory=dict)
    """Of what it was trained with."""
    commit: str | None = None


class HasProvenance(nn.Module):
    """The part of an SAE that knows where it comes from, once it was read from a folder."""

    provenance: Provenance | None = None
    """Where it comes from, of an SAE that was read from a folder."""

    d_in: int
    d_out: int
    d_sae: int

    @property
    def name(self) -> str | None:
        """What it was called in its run; None if it was not read from a folder."""
        return None if self.provenance is None else self.provenance.name

    @property
    def source(self) -> dict[str, Any]:
        """Where its activations came from: model, hook, …; empty where that is not known."""
        return {} if self.provenance is None else self.provenance.source

    @property
    def metrics(self) -> dict[str, float]:
        """Its last validation's, by name (docs/metrics.md); empty where there was none."""
        found = None if self.provenance is None else self.provenance.training.get("metrics")
        return {k: v for k, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}

    def __repr__(self) -> str:
        facts = [f"d_in {self.d_in}", f"d_sae {self.d_sae}"]
        facts += [f"d_out {self.d_out}"] if self.d_out != self.d_in else []
        place = [str(part) for part in (self.source.get("model"), self.source.get("hook")) if part is not None]
        facts += [f"of {' '.join(place)}"] if place else []
        facts += [f"{word} {self.metrics[key]:.{digits}f}" for key, word, digits in _SHOWN if key in self.metrics]
        return f"<{type(self).__name__}{'' if self.name is None else f' {self.name!r}'}: {', '.join(facts)}>"
