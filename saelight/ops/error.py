"""The reconstruction's error and its mean square, with the gradient in one pass. B batch, D d_out, G blocks of latents."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_BD: Tensor, y_hat_BD: Tensor) -> tuple[Tensor, Tensor]:
        error_BD = y_BD - y_hat_BD
        ctx.save_for_backward(error_BD)
        ctx.mark_non_differentiable(error_BD)
        ctx.set_materialize_grads(False)
        if error_BD.is_cpu:
            return error_BD, error_BD.square().mean()
        # No squares that are written and read again.
        return error_BD, torch.linalg.vector_norm(error_BD).square_().div_(error_BD.numel())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, dmean: Tensor | None) -> tuple[Tensor | None, ...]:
        if dmean is None:
            return None, None
        (error_BD,) = ctx.saved_tensors
        d_BD = error_BD * (dmean / (error_BD.numel() / -2))
        return -d_BD if ctx.needs_input_grad[0] else None, d_BD


def mean_square(y_BD: Tensor, y_hat_BD: Tensor) -> tuple[Tensor, Tensor]:
    """y - ŷ (B, D), which has no gradient, and the mean of its squares, which has. Both are of one dtype."""
    return _MeanSquare.apply(y_BD, y_hat_BD)


class _NestedMeanSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_BD: Tensor, offset: Tensor, *blocks: Tensor) -> tuple[Tensor, ...]:
        errors, error_BD = [], y_BD - offset
        for block_BD in blocks:
            # Each block takes from what those before it left over.
            error_BD = error_BD - block_BD
            errors.append(error_BD)
        ctx.save_for_backward(*errors)
        ctx.dtypes, ctx.offset_shape = [block.dtype for block in blocks], offset.shape
        if error_BD.is_cpu:
            means = [error.square().mean() for error in errors]
            mean, whole = sum(means[1:], means[0]) / len(errors), means[-1]
        else:
            # One launch.
            means_G = torch.stack(torch._foreach_norm(errors)).square_().div_(error_BD.numel())
            mean, whole = means_G.mean(), means_G[-1]
        ctx.mark_non_differentiable(error_BD, whole)
        ctx.set_materialize_grads(False)
        return error_BD, mean, whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, dmean: Tensor | None, __: Any) -> tuple[Tensor | None, ...]:
        if dmean is None:
            return (None,) * (2 + len(ctx.dtypes))
        errors = ctx.saved_tensors
        halves = errors[0].numel() / -2
        scale = dmean / len(errors) / halves if dmean.is_cpu else dmean / (len(errors) * halves)
        scaled = torch._foreach_mul(errors, scale)
        # A block's is that of its own error and of all that follow.
        for after, own in zip(scaled[:0:-1], scaled[-2::-1], strict=True):
            own.add_(after)
        gradients = [torch.empty_like(d, dtype=dtype) for d, dtype in zip(scaled, ctx.dtypes, strict=True)]
        torch._foreach_copy_(gradients, scaled)
        dy_BD = -scaled[0] if ctx.needs_input_grad[0] else None
        return dy_BD, scaled[0].sum_to_size(ctx.offset_shape), *gradients


def nested_mean_squares(y_BD: Tensor, offset: Tensor, blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The error that offset and blocks leave over of y (B, D), the mean over prefixes of the mean square that each leaves
    over, and the whole's. Only the mean over prefixes has gradient.

    Args:
        offset: What ŷ begins with, (D,) or (B, D).
        blocks: What each block adds to it, G times (B, D), of any dtype.
    """
    return _NestedMeanSquares.apply(y_BD, offset, *blocks)
