"""Gates and gated magnitudes of whole matrices on a device, forward and backward in few passes. B batch, F d_sae."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def where_positive(values_BF: Tensor, of_BF: Tensor) -> Tensor:
    """`values` where `of` is positive, else 0: relu's backward, which forms no mask."""
    return torch.ops.aten.threshold_backward(values_BF, of_BF, 0)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_BF: Tensor, scale_F: Tensor, shift_F: Tensor) -> tuple[Tensor, Tensor]:
        # Where the gate is shut, so is the latent: its magnitude there does not matter.
        magnitude_BF = torch.addcmul(shift_F, gate_BF, scale_F, out=torch.empty_like(gate_BF)).relu_()
        f_BF = where_positive(magnitude_BF, gate_BF)
        ctx.save_for_backward(gate_BF, f_BF, scale_F)
        return f_BF, gate_BF.sum(dtype=scale_F.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, df_BF: Tensor, dsum: Tensor) -> tuple[Tensor | None, ...]:
        gate_BF, f_BF, scale_F = ctx.saved_tensors
        dmagnitude_BF = where_positive(df_BF, f_BF)
        dscale_F = (dmagnitude_BF * gate_BF).sum(0, dtype=scale_F.dtype)
        dshift_F = dmagnitude_BF.sum(0, dtype=scale_F.dtype)
        return torch.addcmul(dsum, dmagnitude_BF, scale_F, out=dmagnitude_BF), dscale_F, dshift_F


def gated(gate_BF: Tensor, scale_F: Tensor, shift_F: Tensor) -> tuple[Tensor, Tensor]:
    """The latents ReLU(scale ⊙ g + shift) where the gate g = ReLU(π) is open, and the sum of all gates."""
    return _Gated.apply(gate_BF, scale_F, shift_F)
