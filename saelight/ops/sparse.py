"""The sparse encoder and decoder: only kept entries are computed, and only they have gradient.

    encode  z[e] = (x[b] - centre) · W[:, i] + bias[i]        for the entries e = (b, i)
    decode  out[n] = Σ over the entries e of bag n of v[e] · W[i]

A bag is a token, or a token's block of latents. With G_e = dL/dz[e] and g = dL/dout, the gradients are
    dW_enc[:, i] = Σ_e G_e (x[b] - centre),   dbias[i] = Σ_e G_e,   dcentre = -W dbias
    dv[e] = g[n] · W[i],                      dW_dec[i] = Σ_e v[e] g[n]
sums over the entries of one latent, for which these are sorted once. Equal to autograd's of the dense products; the tests
hold them against each other. Shapes: B batch, D width, F d_sae, E entries, N bags.
"""

from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saelight.ops.bags import dots, weighted_sums
from saelight.ops.dispatch import kernels_for


class Bags:
    """Which bag each entry is in."""

    def __init__(self, bags_E: Tensor, n: int) -> None:
        self.bags_E, self.n = bags_E, n

    @cached_property
    def starts_N(self) -> Tensor:
        """Where each bag's entries begin, once they are sorted by bag, and after them their number: (n + 1,)."""
        # Not by counting, for which a device is asked how large they are.
        return torch.searchsorted(self.bags_E, torch.arange(self.n + 1, device=self.bags_E.device))


class Entries(Protocol):
    """What the products need to know of the entries (`KeptEntries` of `entries.py`, which builds on these products)."""

    d_sae: int
    rows_E: Tensor
    latents_E: Tensor

    @property
    def by_token(self) -> Bags: ...

    @property
    def by_latent(self) -> tuple[Tensor, Tensor]: ...


def _per_latent(table_ND: Tensor, bags_E: Tensor, weights_E: Tensor, entries: Entries) -> Tensor:
    """Σ over a latent's entries of weights[e] · table[bag of e]: (F, D)."""
    order_E, starts_F = entries.by_latent
    return weighted_sums(table_ND, bags_E.index_select(0, order_E), weights_E.index_select(0, order_E), starts_F)


def _sum_per_latent(v_E: Tensor, entries: Entries) -> Tensor:
    if kernels_for(v_E) is None:
        # On a CPU in the order of the entries.
        return v_E.new_zeros(entries.d_sae).index_add_(0, entries.latents_E, v_E)
    # On a GPU that would add atomically, in an order that changes from run to run.
    order_E, starts_F = entries.by_latent
    return weighted_sums(v_E.new_ones(1, 1), torch.zeros_like(order_E), v_E.index_select(0, order_E), starts_F)[:, 0]


class _PerLatent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v_E: Tensor, entries: Entries) -> Tensor:
        ctx.entries = entries
        return _sum_per_latent(v_E, entries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_F: Tensor) -> tuple[Tensor | None, ...]:
        return grad_F.index_select(0, ctx.entries.latents_E), None


def sum_per_latent(v_E: Tensor, entries: Entries) -> Tensor:
    """Σ over a latent's entries of v[e], (F,), with gradients. The same inputs give the same bits."""
    return _PerLatent.apply(v_E, entries)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v_E: Tensor, W_FD: Tensor, entries: Entries, bags: Bags) -> Tensor:
        ctx.save_for_backward(v_E, W_FD)
        ctx.entries, ctx.bags = entries, bags
        return weighted_sums(W_FD, entries.latents_E, v_E, bags.starts_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        (v_E, W_FD), entries, bags = ctx.saved_tensors, ctx.entries, ctx.bags
        grad_ND = grad_ND.contiguous()
        dv_E = dW_FD = None
        if ctx.needs_input_grad[0]:
            dv_E = dots(grad_ND, bags.bags_E, W_FD, entries.latents_E, bags.starts_N)
        if ctx.needs_input_grad[1]:
            dW_FD = _per_latent(grad_ND, bags.bags_E, v_E, entries)
        return dv_E, dW_FD, None, None


def sparse_decode(v_E: Tensor, W_FD: Tensor, entries: Entries, bags: Bags) -> Tensor:
    """The bags' sums of v[e] · W[latent of e], (N, D), with gradients.

    Args:
        entries: The `KeptEntries` v belongs to.
        bags: The same entries in bags, in their order.
    """
    return _Decode.apply(v_E, W_FD, entries, bags)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, centre_D: Tensor | None, W_DF: Tensor, bias_F: Tensor | None, z_E: Tensor, entries: Entries
    ) -> Tensor:
        ctx.save_for_backward(x_BD, centre_D, W_DF)
        ctx.entries = entries
        return z_E.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz_E: Tensor) -> tuple[Tensor | None, ...]:
        (x_BD, centre_D, W_DF), entries = ctx.saved_tensors, ctx.entries
        dx = dcentre = dW = None
        sums_F = _sum_per_latent(dz_E, entries)
        if ctx.needs_input_grad[0]:
            dx = weighted_sums(W_DF.T.contiguous(), entries.latents_E, dz_E, entries.by_token.starts_N)
        if ctx.needs_input_grad[1]:
            dcentre = -(W_DF @ sums_F)
        if ctx.needs_input_grad[2]:
            dW_FD = _per_latent(x_BD, entries.rows_E, dz_E, entries)
            # The centre is subtracted from the sums, not from every token.
            dW = (dW_FD if centre_D is None else dW_FD.addr_(sums_F, centre_D, alpha=-1)).T
        return dx, dcentre, dW, sums_F if ctx.needs_input_grad[3] else None, None, None


def sparse_encode(
    x_BD: Tensor, centre_D: Tensor | None, W_DF: Tensor, bias_F: Tensor | None, z_E: Tensor, entries: Entries
) -> Tensor:
    """Give the pre-activations z (E,), computed at `entries`, their gradients to x, centre, W and bias."""
    return _Encode.apply(x_BD, centre_D, W_DF, bias_F, z_E, entries)
