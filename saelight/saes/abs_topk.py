"""AbsTopK SAE: the strongest latents of either sign (arXiv 2510.00404).

    f = the k entries of z + b_enc farthest from 0, signs kept, the rest 0,   z = (x - b_dec) @ W_enc

One latent then holds two opposite concepts. The rest is TopK's.
"""

from dataclasses import dataclass
from typing import ClassVar

from saelight.saes.topk import TopK, TopKSAE


@dataclass(kw_only=True)
class AbsTopK(TopK):
    """A fixed number of latents for every token, of either sign."""

    nests: ClassVar[bool] = False


class AbsTopKSAE(TopKSAE, config=AbsTopK):
    signed = True
