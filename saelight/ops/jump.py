"""The two discontinuous functions of JumpReLU SAEs, with the straight-through gradients they are trained by.

    jump(π, θ) = π · H(π - θ)      ∂/∂θ = -(θ/ε) K((π - θ)/ε),   ∂/∂π = H(π - θ)  [+ (θ/ε) K((π - θ)/ε) if `through`]
    step(π, θ) = H(π - θ)          ∂/∂θ = -(1/ε) K((π - θ)/ε),   ∂/∂π = 0

K(u) = 1[|u| < 1/2]; arXiv 2407.14435, eqs. 11 and 12. Computed in at least float32, whatever π's precision.
θ is a vector (F,), or of π's own shape. Shapes: B batch, F d_sae.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre_BF: Tensor, theta: Tensor, bandwidth: float, through: bool) -> Tensor:
        ctx.save_for_backward(pre_BF, theta)
        ctx.bandwidth, ctx.through = bandwidth, through
        return pre_BF * (pre_BF > theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        pre_BF, theta = ctx.saved_tensors
        near_BF = _near(pre_BF, theta, ctx.bandwidth) * grad_BF * (theta / ctx.bandwidth)
        grad_pre_BF = grad_BF * (pre_BF > theta)
        if ctx.through:
            grad_pre_BF = grad_pre_BF + near_BF
        return grad_pre_BF, -near_BF.sum_to_size(theta.shape), None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre_BF: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_BF, theta)
        ctx.bandwidth = bandwidth
        return (pre_BF > theta).to(theta.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        pre_BF, theta = ctx.saved_tensors
        return None, -(_near(pre_BF, theta, ctx.bandwidth) * grad_BF).sum_to_size(theta.shape) / ctx.bandwidth, None


class _JumpAndSteps(torch.autograd.Function):
    """Both functions of whole matrices on a device, with the sum of the second: in π's own precision, of which every number
    is one of float32, and in as few passes as stock operators allow."""

    @staticmethod
    def forward(ctx: Any, pre_BF: Tensor, theta_F: Tensor, bandwidth: float) -> tuple[Tensor, Tensor, Tensor]:
        beyond_BF = pre_BF > theta_F
        counts_F = beyond_BF.sum(0)
        ctx.save_for_backward(pre_BF, theta_F, beyond_BF)
        ctx.bandwidth = bandwidth
        ctx.mark_non_differentiable(counts_F)
        return pre_BF * beyond_BF, counts_F.sum().to(theta_F.dtype), counts_F

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor, dsteps: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        pre_BF, theta_F, beyond_BF = ctx.saved_tensors
        half = ctx.bandwidth / 2
        # Comparisons with vectors: no matrix of distances is formed.
        near_BF = (pre_BF > theta_F - half).logical_and_(pre_BF < theta_F + half)
        dtheta_F = (near_BF * grad_BF).sum(0, dtype=theta_F.dtype) * theta_F
        dtheta_F = torch.addcmul(dtheta_F, near_BF.sum(0, dtype=theta_F.dtype), dsteps)
        return grad_BF * beyond_BF, dtheta_F / -ctx.bandwidth, None


def _near(pre_BF: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    return ((pre_BF - theta) / bandwidth).abs() < 0.5


def jump(pre_BF: Tensor, theta: Tensor, bandwidth: float, through: bool = False) -> Tensor:
    """π where it exceeds θ, else 0. `through`: the jump's own gradient reaches π too."""
    return _Jump.apply(pre_BF.to(theta.dtype), theta, bandwidth, through)


def step(pre_BF: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """1 where π exceeds θ, else 0."""
    return _Step.apply(pre_BF.to(theta.dtype), theta, bandwidth)


def jump_and_steps(pre_BF: Tensor, theta_F: Tensor, bandwidth: float) -> tuple[Tensor, Tensor, Tensor]:
    """`jump` (B, F), the sum of all of `step`'s, and of how many tokens π exceeds θ, int64 (F,), for a GPU's whole matrices.

    A pre-activation within rounding of the kernel's edge may count as on its other side.
    """
    return _JumpAndSteps.apply(pre_BF, theta_F, bandwidth)
