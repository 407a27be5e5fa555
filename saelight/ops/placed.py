"""Kept entries whose number is known beforehand, computed with as whole matrices: TopK's on a GPU without our kernels.

There a product of whole matrices is fast, and every other pass over (B, F) or (F, D) costs as much as a product's reading.
Selection therefore looks at what the product wrote, latents' weights folded into W_enc, and values are vectors (E,) between
two matrices (B, F): what the encoder's product gives and what the decoder's takes. Nothing waits for the device.
Shapes: B batch, D width, F d_sae, E entries, G blocks of latents.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saelight.ops.matmul import block_products, centred, compute_dtype, matmul, product

Choose = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Of pre-activations (B, F) those to keep: their values, their places in the flattened matrix and their latents, (E,)."""


class PlacedEntries:
    """Some entries, each at one place of (B, F) and no two at the same: values are vectors (E,)."""

    def __init__(self, seen_E: Tensor, places_E: Tensor, latents_E: Tensor, tokens: int, d_sae: int) -> None:
        """
        Args:
            seen_E: What they were chosen by.
            places_E: Where they are in the flattened matrix, in any order.
        """
        self.seen_E, self.places_E, self.latents_E = seen_E, places_E, latents_E
        self.tokens, self.d_sae = tokens, d_sae

    def at(self, p_F: Tensor) -> Tensor:
        return p_F.index_select(0, self.latents_E)

    def whole(self, v_E: Tensor) -> Tensor:
        """The matrix (B, F) of the values, 0 elsewhere, in the dtype of products."""
        v_E = v_E.to(compute_dtype(v_E))
        return v_E.new_zeros(self.tokens * self.d_sae).scatter_(0, self.places_E, v_E).view(self.tokens, self.d_sae)

    def per_latent(self, v_E: Tensor) -> Tensor:
        return self.whole(v_E).sum(0, dtype=torch.promote_types(v_E.dtype, torch.float32))

    def counts(self, v_E: Tensor) -> Tensor:
        # Whole numbers add up to the same in any order.
        fires_E = torch.ne(v_E, 0, out=torch.empty_like(self.latents_E))
        return self.latents_E.new_zeros(self.d_sae).scatter_add_(0, self.latents_E, fires_E)

    def decode(self, v_E: Tensor, W_FD: Tensor) -> Tensor:
        return product(self.whole(v_E), W_FD)

    def decode_blocks(self, v_E: Tensor, W_FD: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
        return block_products(self.whole(v_E), W_FD, ends)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BD: Tensor,
        centre_D: Tensor | None,
        W_DF: Tensor,
        bias_F: Tensor | None,
        weights_F: Tensor | None,
        choose: Choose,
    ) -> tuple[Tensor, ...]:
        dtype = compute_dtype(x_BD)
        ctx.dtypes = x_BD.dtype, W_DF.dtype
        x_BD = centred(x_BD, centre_D, dtype)
        # The weights go into the copy that the product reads, which is made anyway.
        if weights_F is None:
            seen_DF = W_DF.to(dtype)
        else:
            seen_DF = torch.mul(W_DF, weights_F, out=torch.empty_like(W_DF, dtype=dtype))
            if bias_F is not None:
                bias_F = torch.mul(bias_F, weights_F, out=torch.empty_like(bias_F, dtype=dtype))
        z_BF = matmul(x_BD, seen_DF, None if bias_F is None else bias_F.to(dtype))
        seen_E, places_E, latents_E = choose(z_BF)
        z_E = seen_E.clone() if weights_F is None else torch.empty_like(seen_E)
        if weights_F is not None:
            torch.div(seen_E, weights_F.index_select(0, latents_E), out=z_E)
        ctx.save_for_backward(x_BD, W_DF, places_E)
        ctx.shape, ctx.dtype = z_BF.shape, dtype
        ctx.mark_non_differentiable(seen_E, places_E, latents_E)
        ctx.set_materialize_grads(False)
        return z_E, seen_E, places_E, latents_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz_E: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x_BD, W_DF, places_E = ctx.saved_tensors
        dz_BF = dz_E.new_zeros(ctx.shape[0] * ctx.shape[1], dtype=ctx.dtype)
        dz_BF = dz_BF.scatter_(0, places_E, dz_E.to(ctx.dtype)).view(ctx.shape)
        sums_F = dz_BF.sum(0, dtype=W_DF.dtype)
        dx = dcentre = dW = None
        if ctx.needs_input_grad[0]:
            dx = matmul(dz_BF, W_DF.T.to(ctx.dtype)).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            dcentre = torch.addmv(torch.empty_like(W_DF[:, 0]), W_DF, sums_F, beta=0, alpha=-1)
        if ctx.needs_input_grad[2]:
            # The layout of W_enc itself, whose memory is (F, D).
            dW = matmul(dz_BF.T, x_BD).to(W_DF.dtype).T
        return dx, dcentre, dW, sums_F if ctx.needs_input_grad[3] else None, None, None


def encode_placed(
    x_BD: Tensor, centre_D: Tensor | None, W_DF: Tensor, bias_F: Tensor | None, weights_F: Tensor | None, choose: Choose
) -> tuple[Tensor, PlacedEntries]:
    """The pre-activations z = (x - centre) @ W + bias that `choose` keeps, with gradients to x, centre, W and bias.

    Args:
        weights_F: Positive factors on the pre-activations that `choose` is to see.
    """
    z_E, seen_E, places_E, latents_E = _Encode.apply(x_BD, centre_D, W_DF, bias_F, weights_F, choose)
    return z_E, PlacedEntries(seen_E, places_E, latents_E, len(x_BD), W_DF.shape[1])


def largest_of_rows(k: int, signed: bool = False) -> Choose:
    """The k largest of each row; if `signed` the k farthest from 0."""

    def choose(z_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values_BK, latents_BK = (z_BF.abs() if signed else z_BF).topk(k, dim=1, sorted=False)
        if signed:
            values_BK = z_BF.gather(1, latents_BK)
        firsts_B1 = torch.arange(0, z_BF.numel(), z_BF.shape[1], device=z_BF.device)[:, None]
        return values_BK.flatten(), (latents_BK + firsts_B1).flatten(), latents_BK.flatten()

    return choose


def largest_of_all(n: int) -> Choose:
    """The n largest of the whole batch."""

    def choose(z_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values_E, places_E = z_BF.view(-1).topk(n, sorted=False)
        return values_E, places_E, places_E % z_BF.shape[1]

    return choose
