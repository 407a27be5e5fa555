"""saelight's side: banks of nine SAEs of one variant, brought to the sparsity that is asked for.

Shapes: B batch, D d_in, F d_sae.
"""

import math

import torch
from torch import Tensor

from benchmarks.bare import BareLoop
from saelight.bank.latent_adamw import whitening_of
from saelight.saes import SAE, BatchTopK, Gated, HardConcrete, JumpReLU, Matryoshka, ReLU, SAEConfig, TopK
from saelight.schedules import Horizon

HORIZON = Horizon(10_000, 10_000, 2048)


def config(variant: str, d_sae: int, k: int) -> SAEConfig:
    # A small rate: the sparsity that was set is to last while the step is timed.
    common = {"d_sae": d_sae, "lr": 1e-6}
    match variant:
        case "topk":
            return TopK(k=k, **common)
        case "batch_topk":
            return BatchTopK(k=k, **common)
        case "matryoshka":
            return Matryoshka(base=BatchTopK(k=k), **common)
        case "relu":
            return ReLU(**common)
        case "jump_relu":
            return JumpReLU(**common)
        case "gated":
            return Gated(**common)
        case "hard_concrete":
            return HardConcrete(**common)
    raise ValueError(variant)


@torch.no_grad()
def close(sae: SAE, x_BD: Tensor, share: float) -> None:
    """Move each latent's bias (JumpReLU: its threshold) so that it is active on this share of a sample's rows."""
    pre_BF = sae.pre_activations(x_BD)
    level_F = pre_BF.kthvalue(len(x_BD) - max(1, round(share * len(x_BD))), dim=0).values
    if isinstance(sae.config, JumpReLU):
        # In float32 a threshold has to be positive: the bias takes what lies below.
        lift = 1.0
        sae.b_enc.copy_(lift - level_F)
        sae.log_threshold.fill_(math.log(lift))
    elif isinstance(sae.config, Gated):
        sae.b_gate.copy_(-level_F)
        sae.b_mag.copy_(-level_F)
    else:
        sae.b_enc.copy_(-level_F)


def bank(
    variant: str, n: int, d_in: int, d_sae: int, k: int, sample_BD: Tensor, share: float | None, dtype: torch.dtype
) -> BareLoop:
    """A bare loop over n SAEs, differing in seed.

    Args:
        share: The latents' share that is to be active, for variants that learn it; None leaves the start alone.
    """
    saes = [config(variant, d_sae, k).build(d_in, seed=i) for i in range(n)]
    for sae in saes:
        sae.initialise(sample_BD)
        if share is not None:
            close(sae, sample_BD, share)
    return BareLoop(saes, HORIZON, dtype, whitening_of(sample_BD))
