"""One optimizer for a whole bank, with every SAE's own settings."""

from collections.abc import Iterable

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from saelight.saes import SAE
from saelight.schedules import Horizon

EPS = 6.25e-10
"""AdamW's eps: a rare latent's gradients come near 1e-8, its usual value."""


def adamw(named_saes: Iterable[tuple[str, SAE]], horizon: Horizon) -> OptimizerLRSchedulerConfig:
    """One fused AdamW and its per-step schedule, as Lightning wants them.

    Each SAE has one parameter group for each learning rate and weight decay among its parameters.
    """
    groups, factors = [], []
    for name, sae in named_saes:
        decayed = {id(p) for p in sae.decayed_parameters()} if sae.config.weight_decay else set()
        rates = sae.learning_rates(horizon)
        alike: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for own_name, p in sae.named_parameters():
            decay = sae.config.weight_decay if id(p) in decayed else 0.0
            alike.setdefault((rates.get(own_name, sae.lr), decay), []).append(p)
        for (lr, decay), parameters in alike.items():
            own = {"name": name, "lr": lr, "betas": tuple(sae.config.betas), "weight_decay": decay}
            groups.append(own | {"params": parameters})
            factors.append(sae.config.schedule.factor(sae.lr, horizon))
    optimizer = torch.optim.AdamW(groups, eps=EPS, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Each SAE's learning rate of the moment; of several (JumpReLU's thresholds have their own) the weights'."""
    # W_enc or W_dec comes first, and of equal keys the last stays.
    return {group["name"]: group["lr"] for group in reversed(optimizer.param_groups)}


def forget(optimizer: torch.optim.Optimizer | LightningOptimizer, sae: SAE, latents_R: Tensor) -> None:
    """Clear AdamW's moments of latents (R,) that were given new weights."""
    for name, parameter in sae.named_parameters():
        if name in ("b_dec", "W_skip"):
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[parameter]:
                optimizer.state[parameter][moment].index_fill_(1 if name == "W_enc" else 0, latents_R, 0.0)
