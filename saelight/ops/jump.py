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


def _near(pre_BF: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    return ((pre_BF - theta) / bandwidth).abs() < 0.5


def jump(pre_BF: Tensor, theta: Tensor, bandwidth: float, through: bool = False) -> Tensor:
    """π where it exceeds θ, else 0. `through`: the jump's own gradient reaches π too."""
    return _Jump.apply(pre_BF.to(theta.dtype), theta, bandwidth, through)


def step(pre_BF: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """1 where π exceeds θ, else 0."""
    return _Step.apply(pre_BF.to(theta.dtype), theta, bandwidth)
