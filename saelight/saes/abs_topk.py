"""AbsTopK SAE: the strongest latents of either sign (arXiv 2510.00404).

    f = the k entries of z + b_enc farthest from 0, signs kept, the rest 0,   z = (x - b_dec) @ W_enc

One latent then holds two opposite concepts. The rest is TopK's. Shapes: F d_sae.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelight.saes.topk import TopK, TopKSAE


@dataclass(kw_only=True)
class AbsTopK(TopK):
    """A fixed number of latents for every token, of either sign."""

    def build(self, d_in: int, seed: int = 0, d_out: int | None = None) -> "AbsTopKSAE":
        return AbsTopKSAE(self, d_in, seed, d_out)


class AbsTopKSAE(TopKSAE):
    signed = True

    def select(self, pre: Tensor, k: int) -> Tensor:
        indices = pre.abs().topk(k, dim=-1, sorted=False).indices
        return torch.zeros_like(pre).scatter(-1, indices, pre.gather(-1, indices))
