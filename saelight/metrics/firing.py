"""Metrics of the latents alone: how many fire, how strongly, how often each. All share one set of sums.

A latent fires where f ≠ 0, be it positive or, in a variant with signed latents, negative.

Shapes: B batch (tokens), F d_sae.
"""

from typing import Any

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.metrics import functional as fn
from saelight.metrics.sums import Sums

_LOWEST, _PER_DECADE = -8, 4
"""Of the histograms that results keep: from 10⁻⁸ to 1, in so many bins to the decade."""


class Latents(Sums):
    """The shared sums.

    Args:
        d_sae: number of latents, F.
    """

    fired_F: Tensor
    magnitude: Tensor
    latent_tokens: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.add_sum("fired_F", d_sae, dtype=torch.int64)
        self.add_sum("magnitude")
        self.add_sum("latent_tokens", dtype=torch.int64)

    def update(self, f: Tensor) -> None:
        """Add the latents `f` (B, F) of one batch."""
        if f.shape[-1] != self.d_sae:
            raise UserError(f"f has {f.shape[-1]} latents and the metric {self.d_sae}: build it with d_sae={f.shape[-1]}")
        tokens, fired_F, magnitude = fn.latent_sums(f)
        self.add(latent_tokens=tokens, fired_F=fired_F, magnitude=magnitude)

    @property
    def sums(self) -> fn.LatentSums:
        """The states by name, for the functions."""
        return fn.LatentSums(self.latent_tokens, self.fired_F, self.magnitude)


class L0(Latents):
    """Mean number of latents that fire per token."""

    def compute(self) -> Tensor:
        return fn.l0(self.sums)


class L1(Latents):
    """Mean Σ |f| per token."""

    def compute(self) -> Tensor:
        return fn.l1(self.sums)


class Density(Latents):
    """Each latent's firing frequency, (F,); `density_histogram` bins it."""

    def compute(self) -> Tensor:
        return fn.frequency(self.sums)


class Dead(Latents):
    """Fraction of latents that never fired in what was seen."""

    higher_is_better = False

    def compute(self) -> Tensor:
        frequency_F = fn.frequency(self.sums)
        return fn.share(frequency_F == 0, frequency_F)


class Dense(Latents):
    """Fraction of latents that fire on more than `above` of the tokens."""

    higher_is_better = False

    def __init__(self, d_sae: int, above: float = 0.1) -> None:
        super().__init__(d_sae)
        self.above = above

    def compute(self) -> Tensor:
        frequency_F = fn.frequency(self.sums)
        return fn.share(frequency_F > self.above, frequency_F)


def plain_density(frequency_F: Tensor) -> dict[str, Any] | None:
    """The histogram of how often latents fire that results keep, as plain data; None of frequencies that are not known."""
    if bool(frequency_F.isnan().any()):
        return None
    histogram = fn.density_histogram(frequency_F, _LOWEST, _PER_DECADE)
    counts, silent = histogram.counts.tolist(), histogram.silent
    return {"lowest": _LOWEST, "per_decade": _PER_DECADE, "counts": counts, "silent": silent}
