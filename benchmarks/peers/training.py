"""What a peer is: another library's SAE with everything its trainer does to it in one step, behind one call.

Shapes: A active rows and one more, B batch, D d_in, F d_sae.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

SPARSE_SHARE = 0.015
"""Of the latents, how many are active for a row once `Gate.close` has been called: what training ends near."""

MATRYOSHKA_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32)
"""The groups of latents, the same for every library (saelight's defaults)."""

autocast = partial(torch.autocast, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Gate:
    """Where an encoder with a learnt sparsity decides: a latent is active where its pre-activation exceeds a threshold."""

    pre_activations: Callable[[Tensor], Tensor]
    bias_F: nn.Parameter
    """Added to the pre-activations."""
    threshold: Callable[[], Tensor | float] = lambda: 0.0

    @torch.no_grad()
    def share_active(self, x_BD: Tensor) -> float:
        return (self.pre_activations(x_BD) > self.threshold()).float().mean().item()

    @torch.no_grad()
    def close(self, x_BD: Tensor, share: float = SPARSE_SHARE) -> None:
        """Shift each latent's bias so that it is active on this share of a sample's rows.

        A fresh ReLU-like SAE has about half of its latents active, which no trained one has. The libraries compare,
        multiply and differentiate densely: their products cost the same either way, though a JumpReLU's masked writes
        get cheaper. A library that uses sparsity can be compared only where there is some, all starting from the same.
        """
        active = max(1, round(share * len(x_BD)))
        top_AF = self.pre_activations(x_BD).topk(active + 1, dim=0).values
        # Between two values, so that rounding does not decide on either.
        self.bias_F.sub_((top_AF[-2] + top_AF[-1]) / 2 - self.threshold())


@dataclass(frozen=True)
class Training:
    """An SAE in training: each call is one whole step on a batch, from the forward pass to the library's bookkeeping."""

    module: nn.Module
    step: Callable[[Tensor], None]
    gate: Gate | None = None
    """None where the variant fixes the number of active latents."""

    def __call__(self, x_BD: Tensor) -> None:
        self.step(x_BD)


@dataclass(frozen=True)
class Peer:
    """One library's variant in one precision; `build` makes a fresh SAE from d_in, d_sae, k, seed and device (the CPU).

    A first call can do what later ones do not (optimizer state, the first decoder bias), and is no measurement.
    """

    library: str
    variant: str
    precision: str
    build: Callable[..., Training]


@contextmanager
def fast_matmuls() -> Iterator[None]:
    """float32 products by way of bfloat16 where the CPU has it: what autocast leaves in float32 gains too."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fastest(build: Callable[..., Training]) -> Callable[..., Training]:
    """The same training, with each step under `fast_matmuls`; autocast is each library's own affair."""

    def built(d_in: int, d_sae: int, k: int, seed: int, device: str = "cpu") -> Training:
        training = build(d_in, d_sae, k, seed, device)
        return Training(training.module, fast_matmuls()(training.step), training.gate)

    return built
