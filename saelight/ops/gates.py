"""Hard concrete gates: a relaxation of on/off variables that has gradient and reaches 0 and 1 exactly.

    s = σ((logit u + log α)/β),   g = clip(s(ζ - γ) + γ, 0, 1),   u ~ U(0, 1),  γ = -0.1, ζ = 1.1

Louizos, Welling & Kingma, "Learning Sparse Neural Networks through L0 Regularization" (arXiv 1712.01312), eqs. 10-13.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saelight.ops.dispatch import works_in_whole

GAMMA, ZETA = -0.1, 1.1
OPEN = math.log(-GAMMA / ZETA)
"""The log α above which a gate is open at inference."""
_CHUNK = 1 << 18  # entries; some arrays of 1 MB


class _Sampled(torch.autograd.Function):
    """Both functions of log α at once, by chunks of rows that stay in the processor's cache, with their slopes kept for
    backward: dg/dlogα = s(1 - s)(ζ - γ)/β where g is not clipped, dP/dlogα = P(1 - P)."""

    @staticmethod
    def forward(ctx: Any, log_alpha_BF: Tensor, u_BF: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        gates_BF, slope_BF, spread_BF = (torch.empty_like(u_BF) for _ in range(3))
        open_sum = u_BF.new_zeros(())
        rows = max(1, _CHUNK // u_BF.shape[1])
        chunks = (t.split(rows) for t in (log_alpha_BF, u_BF, gates_BF, slope_BF, spread_BF))
        for log_alpha, u, gates, slope, spread in zip(*chunks, strict=True):
            s = torch.logit(u).add_(log_alpha).div_(beta).sigmoid_()
            stretched = torch.mul(s, ZETA - GAMMA).add_(GAMMA)
            torch.clamp(stretched, 0, 1, out=gates)
            torch.addcmul(s, s, s, value=-1, out=slope).mul_((ZETA - GAMMA) / beta).mul_(stretched == gates)
            p = torch.sub(log_alpha, beta * OPEN).sigmoid_()
            open_sum += p.sum()
            torch.addcmul(p, p, p, value=-1, out=spread)
        ctx.save_for_backward(slope_BF, spread_BF)
        return gates_BF, open_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgates_BF: Tensor, dopen: Tensor) -> tuple[Tensor | None, ...]:
        slope_BF, spread_BF = ctx.saved_tensors
        return (dgates_BF * slope_BF).addcmul_(spread_BF, dopen), None, None


class _SampledWhole(torch.autograd.Function):
    """The same in whole matrices for a device: few launches, the gates in log α's own precision, sampled in u's."""

    @staticmethod
    def forward(ctx: Any, log_alpha_BF: Tensor, u_BF: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        s_BF = u_BF.logit_().add_(log_alpha_BF).div_(beta).sigmoid_()
        gates_BF, slope_BF = torch.empty_like(log_alpha_BF), torch.empty_like(log_alpha_BF)
        torch.add(s_BF.new_full((), GAMMA), s_BF, alpha=ZETA - GAMMA, out=gates_BF).clamp_(0, 1)
        steepness = s_BF.new_full((), (ZETA - GAMMA) / beta)
        torch.ops.aten.sigmoid_backward(steepness, s_BF, grad_input=slope_BF)
        slope_BF = torch.ops.aten.hardtanh_backward(slope_BF, gates_BF, 0, 1)
        p_BF = torch.sub(log_alpha_BF, beta * OPEN).sigmoid_()
        ctx.save_for_backward(slope_BF, p_BF)
        return gates_BF, p_BF.sum(dtype=u_BF.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgates_BF: Tensor, dopen: Tensor) -> tuple[Tensor | None, ...]:
        slope_BF, p_BF = ctx.saved_tensors
        spread_BF = torch.ops.aten.sigmoid_backward(dopen.to(p_BF.dtype), p_BF)
        return spread_BF.addcmul_(dgates_BF, slope_BF), None, None


def sampled(log_alpha: Tensor, u_BF: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Gates in [0, 1] of the shape of `u_BF`, sampled by its uniform numbers, and the sum over log α of P(g > 0).

    Args:
        log_alpha: (B, F), or (F,) where it does not depend on the token.
        u_BF: May be overwritten.
    """
    if log_alpha.shape == u_BF.shape and works_in_whole(u_BF):
        return _SampledWhole.apply(log_alpha, u_BF, beta)
    if log_alpha.shape == u_BF.shape:
        return _Sampled.apply(log_alpha.to(u_BF.dtype), u_BF, beta)
    s_BF = torch.sigmoid((torch.logit(u_BF) + log_alpha) / beta)
    return s_BF.mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1), open_probability(log_alpha, beta).sum()


def expected(log_alpha: Tensor) -> Tensor:
    """The gates at inference: no noise."""
    return torch.sigmoid(log_alpha).mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor, beta: float) -> Tensor:
    """P(g > 0): summed over gates, the expected L0 (eq. 12)."""
    return torch.sigmoid(log_alpha - beta * OPEN)
