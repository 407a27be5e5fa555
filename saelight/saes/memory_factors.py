"""What training an SAE holds in memory beside its weights, measured for each kind of variant."""

from typing import NamedTuple


class MemoryFactors(NamedTuple):
    """Buffers of an SAE, in sizes of its parameters and of its latents (B, F)."""

    parameters: float
    """In sizes of its parameters, while it trains."""
    latents: float
    """In sizes of its latents, while it trains."""
    latents_kept: float
    """In sizes of its latents, between its turns too."""


DENSE = MemoryFactors(parameters=0.0, latents=12.3, latents_kept=4.4)
"""Of variants that compute every latent and its gradient."""
KEPT = MemoryFactors(parameters=10.4, latents=0.0, latents_kept=0.8)
"""Of variants that keep few latents of each token, whatever their weights."""
