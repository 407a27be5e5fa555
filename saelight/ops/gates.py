"""Hard concrete gates: a relaxation of on/off variables that has gradient and reaches 0 and 1 exactly.

    s = σ((logit u + log α)/β),   g = clip(s(ζ - γ) + γ, 0, 1),   u ~ U(0, 1),  γ = -0.1, ζ = 1.1

Louizos, Welling & Kingma, "Learning Sparse Neural Networks through L0 Regularization" (arXiv 1712.01312), eqs. 10-13.
"""

import math

import torch
from torch import Tensor

GAMMA, ZETA = -0.1, 1.1
OPEN = math.log(-GAMMA / ZETA)
"""The log α above which a gate is open at inference."""


def sampled(log_alpha: Tensor, u: Tensor, beta: float) -> Tensor:
    """Gates in [0, 1] of the shape of `u`, sampled by its uniform numbers."""
    return torch.sigmoid((torch.logit(u) + log_alpha) / beta).mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1)


def expected(log_alpha: Tensor) -> Tensor:
    """The gates at inference: no noise."""
    return torch.sigmoid(log_alpha).mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor, beta: float) -> Tensor:
    """P(g > 0): summed over gates, the expected L0 (eq. 12)."""
    return torch.sigmoid(log_alpha - beta * OPEN)
