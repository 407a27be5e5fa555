"""What an SAE says about a token in few numbers: its strongest latents.

Shapes: B batch, F d_sae, K kept latents.
"""

from typing import NamedTuple

from torch import Tensor


class TopLatents(NamedTuple):
    """The strongest latents of each token, of one SAE."""

    values_BK: Tensor
    """Their activations, float32, strongest first, signs kept; 0 where fewer than K fired."""
    indices_BK: Tensor
    """Their indices, int32."""


def strongest(f_BF: Tensor, k: int) -> TopLatents:
    """The k latents of each token (all, when there are fewer) that are farthest from 0."""
    indices_BK = f_BF.abs().topk(min(k, f_BF.shape[1])).indices
    return TopLatents(f_BF.gather(1, indices_BK).float(), indices_BK.int())
