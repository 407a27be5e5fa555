"""Hard-concrete gates (Louizos et al. arXiv 1712.01312), alone and in the place of Gated's step.

B batch, O d_out, F d_sae.
"""

import math

import torch
from torch import Tensor

from tests.conformance.reference.common import (
    Reference,
    Weights,
    added,
    differentiate,
    frozen,
    leaves,
    per_token,
    projections,
    reconstruction_loss,
)

GAMMA, ZETA = -0.1, 1.1


def sigmoid(a: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-a))


def stretch(s: Tensor) -> Tensor:
    return torch.clamp(s * (ZETA - GAMMA) + GAMMA, min=0, max=1)


def noisy_gates(log_alpha: Tensor, noise: Tensor, beta: float) -> Tensor:
    """g (B, F) for uniform noise u (B, F)."""
    return stretch(sigmoid((torch.log(noise) - torch.log(1 - noise) + log_alpha) / beta))


def eval_gates(log_alpha: Tensor) -> Tensor:
    return stretch(sigmoid(log_alpha))


def open_probability(log_alpha: Tensor, beta: float) -> Tensor:
    """P(g > 0); its sum is the expected L0."""
    return sigmoid(log_alpha - beta * math.log(-GAMMA / ZETA))


def gate_logits(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    """log α (B, F): of the token where there is an encoder bias, else the latents' own."""
    if "log_alpha" in w:
        return w["log_alpha"].expand(x.shape[0], -1)
    return projections(x, y, w) + w["b_enc"]


def hard_concrete(x: Tensor, y: Tensor | None, w: Weights, *, coefficient: float, noise: Tensor, beta: float) -> Reference:
    w = leaves(w)
    B, width = per_token(x, y)
    log_alpha = gate_logits(x, y, w)
    f = noisy_gates(log_alpha, noise, beta) * torch.clamp(projections(x, y, w) + w["b_mag"], min=0)
    expected_l0 = open_probability(log_alpha, beta).sum() / B
    return differentiate(reconstruction_loss(f, x, y, w) + coefficient / width**0.5 * expected_l0, w, f)


def gated_magnitudes(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    return torch.clamp(torch.exp(w["r_mag"]) * projections(x, y, w) + w["b_mag"], min=0)


def gated_hard_concrete(
    x: Tensor,
    y: Tensor | None,
    w: Weights,
    *,
    coefficient: float,
    noise: Tensor,
    beta: float,
    aux_coefficient: float = 1.0,
    held: Weights | None = None,
) -> Reference:
    held, w = frozen(held or w), leaves(w)
    B, width = per_token(x, y)
    log_alpha = projections(x, y, w) + w["b_gate"]
    gates = noisy_gates(log_alpha, noise, beta)
    f = gates * gated_magnitudes(x, y, w)
    expected_l0 = open_probability(log_alpha, beta).sum() / B
    from_gates = torch.einsum("bf,fo->bo", gates, held["W_dec"]) + added(x, held)
    aux = (((x if y is None else y) - from_gates) ** 2).sum() / (B * width)
    loss = reconstruction_loss(f, x, y, w) + coefficient / width**0.5 * expected_l0 + aux_coefficient * aux
    return differentiate(loss, w, f)
