"""One optimizer for a whole bank, with every SAE's own settings."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from saelight.saes import SAE
from saelight.schedules import Horizon

EPS = 6.25e-10
"""AdamW's eps: a rare latent's gradients come near 1e-8, its usual value."""


def adamw(named_saes: Iterable[tuple[str, SAE]], horizon: Horizon) -> dict[str, Any]:
    """One fused AdamW and its per-step schedule, as Lightning wants them.

    Each SAE has one parameter group, or two where some of its parameters are decayed.
    """
    groups, factors = [], []
    for name, sae in named_saes:
        config = sae.config
        decayed = sae.decayed_parameters() if config.weight_decay else []
        ids = {id(p) for p in decayed}
        rest = [p for p in sae.parameters() if id(p) not in ids]
        for parameters, decay in ((decayed, config.weight_decay), (rest, 0.0)):
            if parameters:
                own = {"name": name, "lr": sae.lr, "betas": tuple(config.betas), "weight_decay": decay}
                groups.append(own | {"params": parameters})
                factors.append(config.schedule.factor(sae.lr, horizon))
    optimizer = torch.optim.AdamW(groups, eps=EPS, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def forget(optimizer: torch.optim.Optimizer, sae: SAE, latents_R: Tensor) -> None:
    """Clear AdamW's moments of latents (R,) that were given new weights."""
    for name, parameter in sae.named_parameters():
        if name in ("b_dec", "W_skip"):
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[parameter]:
                optimizer.state[parameter][moment].index_fill_(1 if name == "W_enc" else 0, latents_R, 0.0)
