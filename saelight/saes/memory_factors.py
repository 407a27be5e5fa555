"""What training an SAE holds in memory beside its weights: on a CPU measured, on a GPU counted, for each kind of variant."""

from typing import NamedTuple


class GPUFactors(NamedTuple):
    """What a step holds at its peak beside weights, gradients and moments, as `python -m benchmarks.gpu.live_bytes` counts
    it."""

    mixed: float
    """Bytes for each of the latents (B, F) in bf16-mixed."""
    full: float
    """The same in 32-true."""
    parameters: float = 1.2
    """In sizes of its parameters: their copies in bf16, gradients on their way, the optimizer's step."""


class MemoryFactors(NamedTuple):
    """Buffers of an SAE, in sizes of its parameters and of its latents (B, F); those on a GPU are a row of their own."""

    parameters: float
    """In sizes of its parameters, while it trains."""
    latents: float
    """In sizes of its latents, while it trains."""
    latents_kept: float
    """In sizes of its latents, between its turns too."""
    gpu: GPUFactors = GPUFactors(mixed=24.0, full=26.0)
    """On a GPU, which computes all latents; by default what plain autograd through a few gates holds."""


DENSE = MemoryFactors(parameters=0.0, latents=12.3, latents_kept=4.4)
"""Of variants that compute every latent and its gradient."""
KEPT = MemoryFactors(parameters=10.4, latents=0.0, latents_kept=0.8, gpu=GPUFactors(mixed=6.0, full=9.0))
"""Of variants that keep few latents of each token, whatever their weights."""
