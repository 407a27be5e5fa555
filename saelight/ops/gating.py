"""Gates and gated magnitudes of whole matrices on a device, forward and backward in few passes. B batch, F d_sae."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def where_above(values_BF: Tensor, of_BF: Tensor, bound: float = 0.0) -> Tensor:
    """`values` where `of` exceeds the bound, else 0: relu's backward, which forms no mask."""
    return torch.ops.aten.threshold_backward(values_BF, of_BF, bound)


class _RectifiedAffine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BF: Tensor, scale_F: Tensor | None, shift_F: Tensor) -> Tensor:
        out_BF = torch.empty_like(x_BF)
        if scale_F is None:
            torch.add(x_BF, shift_F, out=out_BF).relu_()
        else:
            torch.addcmul(shift_F, x_BF, scale_F, out=out_BF).relu_()
        ctx.save_for_backward(x_BF if scale_F is not None else None, scale_F, out_BF)
        ctx.dtype = shift_F.dtype
        return out_BF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        x_BF, scale_F, out_BF = ctx.saved_tensors
        grad_BF = where_above(grad_BF, out_BF)
        dshift_F = grad_BF.sum(0, dtype=ctx.dtype)
        if scale_F is None:
            return grad_BF, None, dshift_F
        dscale_F = (grad_BF * x_BF).sum(0, dtype=ctx.dtype)
        return torch.mul(grad_BF, scale_F, out=grad_BF), dscale_F, dshift_F


def rectified_affine(x_BF: Tensor, scale_F: Tensor | None, shift_F: Tensor) -> Tensor:
    """ReLU(scale ⊙ x + shift) (B, F) in x's own precision; `scale` None: 1."""
    return _RectifiedAffine.apply(x_BF, scale_F, shift_F)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_BF: Tensor, scale_F: Tensor, shift_F: Tensor) -> tuple[Tensor, Tensor]:
        # Where the gate is shut, so is the latent: its magnitude there does not matter.
        magnitude_BF = torch.addcmul(shift_F, gate_BF, scale_F, out=torch.empty_like(gate_BF)).relu_()
        f_BF = where_above(magnitude_BF, gate_BF)
        ctx.save_for_backward(gate_BF, f_BF, scale_F)
        return f_BF, gate_BF.sum(dtype=scale_F.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, df_BF: Tensor, dsum: Tensor) -> tuple[Tensor | None, ...]:
        gate_BF, f_BF, scale_F = ctx.saved_tensors
        dmagnitude_BF = where_above(df_BF, f_BF)
        dscale_F = (dmagnitude_BF * gate_BF).sum(0, dtype=scale_F.dtype)
        dshift_F = dmagnitude_BF.sum(0, dtype=scale_F.dtype)
        return torch.addcmul(dsum, dmagnitude_BF, scale_F, out=dmagnitude_BF), dscale_F, dshift_F


def gated(gate_BF: Tensor, scale_F: Tensor, shift_F: Tensor) -> tuple[Tensor, Tensor]:
    """The latents ReLU(scale ⊙ g + shift) where the gate g = ReLU(π) is open, and the sum of all gates."""
    return _Gated.apply(gate_BF, scale_F, shift_F)
