"""Which entries of the latents (B, F) a training step computes with: all of them, or only those that can be active.

A variant's objective is written once, for values that are either a whole matrix (B, F) or a vector of kept entries (E,):
between encoder and decoder everything is elementwise or a sum, and these two classes answer what differs. Where a latent is
0 and has no gradient, leaving it out changes nothing but the time (`sparse.py`).
Shapes: B batch, F d_sae, D d_out, E kept entries, row by row and in each row by latent; G blocks of latents.
"""

from functools import cached_property

import torch
from torch import Tensor

from saelight.ops.counts import firing_counts
from saelight.ops.dispatch import loops_for
from saelight.ops.later import to_device
from saelight.ops.matmul import block_products, product
from saelight.ops.sparse import Bags, sparse_decode, sum_per_latent


class AllEntries:
    """Every entry: values are matrices (B, F)."""

    def at(self, p_F: Tensor) -> Tensor:
        """A latent's parameter at the entries."""
        return p_F

    def per_latent(self, v_BF: Tensor) -> Tensor:
        """Sums over tokens, (F,), in at least float32."""
        return v_BF.sum(0, dtype=torch.promote_types(v_BF.dtype, torch.float32))

    def counts(self, v_BF: Tensor) -> Tensor:
        """Tokens on which each latent's value is not 0, (F,) int64."""
        return firing_counts(v_BF)

    def decode(self, v_BF: Tensor, W_FD: Tensor) -> Tensor:
        """v @ W, (B, D)."""
        return product(v_BF, W_FD)

    def decode_blocks(self, v_BF: Tensor, W_FD: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
        """v @ W of each block of latents alone, G times (B, D); the blocks end before `ends`."""
        return block_products(v_BF, W_FD, ends)


class KeptEntries:
    """Some entries: values are vectors (E,)."""

    def __init__(self, flat_E: Tensor, tokens: int, d_sae: int, per_token: int | None = None) -> None:
        """
        Args:
            flat_E: The entries' places in the flattened matrix, ascending.
            per_token: How many each token has, where all have as many.
        """
        self.tokens, self.d_sae, self.per_token = tokens, d_sae, per_token
        self.rows_E = flat_E.div(d_sae, rounding_mode="floor")
        self.latents_E = flat_E - self.rows_E * d_sae

    def take(self, places: Tensor) -> "KeptEntries":
        """Those at some places, ascending."""
        taken = KeptEntries.__new__(KeptEntries)
        taken.tokens, taken.d_sae, taken.per_token = self.tokens, self.d_sae, None
        taken.rows_E, taken.latents_E = self.rows_E.index_select(0, places), self.latents_E.index_select(0, places)
        return taken

    @cached_property
    def density(self) -> float:
        """The kept share of all entries."""
        return len(self.rows_E) / (self.tokens * self.d_sae)

    @cached_property
    def by_token(self) -> Bags:
        return Bags(self.rows_E, self.tokens)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """The entries sorted by latent (E,), and where each latent's begin (F + 1,). Encoder and decoder share it."""
        if (loops := loops_for(self.latents_E)) is None:
            sorted_E, order_E = self.latents_E.sort(stable=True)
            return order_E, Bags(sorted_E, self.d_sae).starts_N
        order_E, starts_F = torch.empty_like(self.latents_E), self.latents_E.new_zeros(self.d_sae + 1)
        loops.sort(self.latents_E.numpy(), starts_F.numpy(), order_E.numpy())
        return order_E, starts_F

    def at(self, p_F: Tensor) -> Tensor:
        return p_F.index_select(0, self.latents_E)

    def per_latent(self, v_E: Tensor) -> Tensor:
        return sum_per_latent(v_E, self)

    def counts(self, v_E: Tensor) -> Tensor:
        return self.latents_E.new_zeros(self.d_sae).index_add_(0, self.latents_E, (v_E != 0).long())

    def decode(self, v_E: Tensor, W_FD: Tensor) -> Tensor:
        return sparse_decode(v_E, W_FD, self, self.by_token)

    def decode_blocks(self, v_E: Tensor, W_FD: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
        blocks_E = torch.bucketize(self.latents_E, to_device(ends, self.latents_E), right=True)
        bags = Bags(self.rows_E * len(ends) + blocks_E, self.tokens * len(ends))
        return sparse_decode(v_E, W_FD, self, bags).view(self.tokens, len(ends), -1).unbind(1)
