"""The encoder's affine map, without the product that its plain gradient would waste.

Shapes: B batch, D d_in, F d_sae.
"""

import torch
from torch import Tensor


class _CentredProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, b: Tensor, W: Tensor) -> Tensor:
        y = x - b
        z = y @ W
        # Under autocast the product ran in z's precision; backward does the same.
        ctx.save_for_backward(y.to(z.dtype), W.to(z.dtype))
        ctx.dtypes = x.dtype, b.dtype, W.dtype
        return z

    @staticmethod
    def backward(ctx, dz: Tensor):
        y, W = ctx.saved_tensors
        dx = db = dW = None
        x_dtype, b_dtype, W_dtype = ctx.dtypes
        if ctx.needs_input_grad[0]:
            dx = (dz @ W.T).to(x_dtype)
        rows_BF = dz.reshape(-1, dz.shape[-1])
        if ctx.needs_input_grad[1]:
            # Summed over tokens before the product: (F,) @ (F, D), not (B, F) @ (F, D).
            db = -(rows_BF.sum(0, dtype=b_dtype) @ W.T.to(b_dtype))
        if ctx.needs_input_grad[2]:
            dW = (y.reshape(-1, y.shape[-1]).T @ rows_BF).to(W_dtype)
        return dx, db, dW


def centred_product(x: Tensor, b: Tensor, W: Tensor) -> Tensor:
    """(x - b) @ W for x (..., D), b (D,), W (D, F): (..., F).

    Equal to the plain expression, gradients included, but b's gradient costs one row's product instead of a batch's: a
    sixth of a training step where x itself needs no gradient.
    """
    return _CentredProduct.apply(x, b, W)
