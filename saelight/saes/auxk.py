"""AuxK: the dead latents learn to predict what the others miss (arXiv 2406.04093, appendix A.2).

    aux = ‖sg[e] - ê‖² / ‖sg[e] - mean_B sg[e]‖²,   e = y - ŷ

ê decodes, without bias, the k_aux largest pre-activations among the dead latents. Shapes: B batch, D d_out, A dead
latents, and perhaps others (dead_latents.py).
"""

import torch
from torch import Tensor

from saelight.ops.matmul import product

AUX_COEFFICIENT = 1 / 32
"""The paper's weight of AuxK beside the reconstruction."""
_ROUNDING = 1e-10


def dead_used(k_aux: int | None, d_out: int) -> int:
    """How many dead latents AuxK uses per token, where none is given: half of the width, as in the paper."""
    return k_aux or max(1, d_out // 2)


def auxk(
    pre_BA: Tensor,
    error_BD: Tensor,
    W_dec_AD: Tensor,
    k_aux: int,
    signed: bool = False,
    dead_A: Tensor | None = None,
) -> Tensor:
    """The ratio; 0 where no latent is dead, or where the error does not vary.

    Args:
        signed: The largest are those farthest from 0.
        dead_A: Which latents are dead, bool (A,); the others' decoder rows are 0. None: all are.
    """
    error_BD = error_BD.detach()
    if pre_BA.shape[1] == 0:
        return error_BD.new_zeros(())
    by_BA = pre_BA.detach().abs() if signed else pre_BA.detach()
    if dead_A is not None:
        by_BA = by_BA.masked_fill(~dead_A, -torch.inf)
    indices = by_BA.topk(min(k_aux, pre_BA.shape[1]), dim=1, sorted=False).indices
    kept_BA = torch.zeros_like(pre_BA).scatter(1, indices, pre_BA.gather(1, indices))
    missed_BD = error_BD - product(kept_BA, W_dec_AD).to(error_BD.dtype)
    variation = (error_BD - error_BD.mean(0)).square().sum()
    # Equal errors, as of equal tokens, differ by rounding alone. Division by a safe number first: the gradient of a masked
    # 0/0 would still be NaN.
    safe = variation.isfinite() & (variation > _ROUNDING * error_BD.square().sum())
    if dead_A is not None:
        safe = safe & dead_A.any()
    return missed_BD.square().sum() / torch.where(safe, variation, 1.0) * safe
