"""The autograd node that hands gradients computed earlier to a later backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _HandOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], scaled: bool, *parameters: Tensor) -> Tensor:
        ctx.gradients, ctx.scaled = gradients, scaled
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        # Emptied at once: with no other reference left, autograd takes these tensors over as .grad, without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        # Reading the scale is free on the CPU only.
        if ctx.scaled and not (scale.is_cpu and scale.item() == 1.0):
            torch._foreach_mul_([g for g in gradients if g is not None], scale)
        return None, None, None, *gradients


def hand_over(loss: Tensor, gradients: list[Tensor | None], parameters: Sequence[Tensor], *, scaled: bool = True) -> Tensor:
    """`loss` (a scalar without a graph) as a tensor whose backward gives each parameter its stored gradient.

    Lets every SAE run forward and backward in turn, one graph alive at a time, while Lightning's own backward,
    accumulation, DDP hooks and precision plugins work as for any loss. The gradients are scaled by the incoming one.
    None leaves a parameter's gradient alone. The list is consumed.

    Args:
        scaled: False where the incoming gradient is known to be 1: they are then not multiplied by it, which on a GPU is a
            pass over all of them.
    """
    return _HandOver.apply(loss, gradients, scaled, *parameters)
