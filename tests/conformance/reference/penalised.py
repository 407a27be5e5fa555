"""ReLU (Σ f‖d‖, Bricken et al. 2023; powers p < 1, Karvonen et al. arXiv 2408.00113) and Gated (arXiv 2404.16014).

B batch, O d_out, F d_sae.
"""

import torch
from torch import Tensor

from tests.conformance.reference.common import (
    Reference,
    Weights,
    added,
    differentiate,
    frozen,
    leaves,
    norms,
    per_token,
    projections,
    reconstruction_loss,
)


def relu_latents(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    return torch.clamp(projections(x, y, w) + w["b_enc"], min=0)


def weighted_power(f: Tensor, w: Weights, p: float) -> Tensor:
    """Σ (f‖d‖)^p over the batch; only over what fired, so that the gradient at 0 is 0 and not infinite."""
    weighted = f * norms(w)
    return (weighted[f > 0] ** p).sum()


def relu(
    x: Tensor, y: Tensor | None, w: Weights, *, coefficient: float, p: float = 1.0, prefixes: list[int] | None = None
) -> Reference:
    w = leaves(w)
    B, width = per_token(x, y)
    f = relu_latents(x, y, w)
    loss = reconstruction_loss(f, x, y, w, prefixes) + coefficient / width**0.5 * weighted_power(f, w, p) / B
    return differentiate(loss, w, f)


def gated_paths(x: Tensor, y: Tensor | None, w: Weights) -> tuple[Tensor, Tensor]:
    """π_gate and the latents."""
    z = projections(x, y, w)
    gate = z + w["b_gate"]
    magnitude = torch.clamp(torch.exp(w["r_mag"]) * z + w["b_mag"], min=0)
    return gate, torch.where(gate > 0, magnitude, torch.zeros_like(magnitude))


def gated(
    x: Tensor,
    y: Tensor | None,
    w: Weights,
    *,
    coefficient: float,
    aux_coefficient: float = 1.0,
    held: Weights | None = None,
) -> Reference:
    held, w = frozen(held or w), leaves(w)
    B, width = per_token(x, y)
    gate, f = gated_paths(x, y, w)
    open_gate = torch.clamp(gate, min=0)
    from_gates = torch.einsum("bf,fo->bo", open_gate, held["W_dec"]) + added(x, held)
    aux = (((x if y is None else y) - from_gates) ** 2).sum() / (B * width)
    penalty = open_gate.sum() / B
    return differentiate(reconstruction_loss(f, x, y, w) + coefficient / width**0.5 * penalty + aux_coefficient * aux, w, f)
