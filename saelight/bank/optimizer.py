"""One optimizer for a whole bank, with every SAE's own settings.

Shapes: D d_in, R resampled latents.
"""

from collections.abc import Iterable

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from saelight.bank.latent_adamw import LatentAdamW
from saelight.saes import SAE
from saelight.schedules import Horizon

EPS = 6.25e-10
"""AdamW's eps: a rare latent's gradients come near 1e-8, its usual value."""

BETAS = {"latent_adamw": (0.8, 0.98), "adamw": (0.9, 0.999)}
"""Default decays by optimizer."""
_WIDTH_DIMS = {"W_enc": 0, "W_dec": 1}
"""Where a latent's weights lie in the matrices that have a row or column for each."""


def adamw(
    named_saes: Iterable[tuple[str, SAE]], horizon: Horizon, whitening_DD: Tensor | None = None
) -> OptimizerLRSchedulerConfig:
    """One AdamW and its per-step schedule, as Lightning wants them.

    Each SAE has one parameter group for each way in which its parameters are stepped.
    """
    groups, factors = [], []
    for name, sae in named_saes:
        decayed = {id(p) for p in sae.decayed_parameters()} if sae.config.weight_decay else set()
        rates = sae.learning_rates(horizon)
        lr, betas = sae.peak_lr(horizon), tuple(sae.config.betas or BETAS[sae.config.optimizer])
        alike: dict[tuple[float, float, int | None, bool], list[torch.nn.Parameter]] = {}
        for own_name, p in sae.named_parameters():
            decay = sae.config.weight_decay if id(p) in decayed else 0.0
            width_dim = _WIDTH_DIMS.get(own_name) if sae.config.optimizer == "latent_adamw" else None
            whitened = width_dim is not None and own_name == "W_enc"
            alike.setdefault((rates.get(own_name, lr), decay, width_dim, whitened), []).append(p)
        for n, ((own_lr, decay, width_dim, whitened), parameters) in enumerate(alike.items(), 1):
            # Lightning's monitor wants a name for each group.
            own = {"name": name if n == 1 else f"{name}/{n}", "sae": name, "lr": own_lr, "betas": betas}
            kind = {"weight_decay": decay, "width_dim": width_dim, "whitened": whitened}
            groups.append(own | kind | {"params": parameters})
            factors.append(sae.config.schedule.factor(lr, horizon))
    optimizer = LatentAdamW(groups, EPS, whitening_DD)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Each SAE's learning rate of the moment; of several (JumpReLU's thresholds have their own) the weights'."""
    # W_enc or W_dec comes first, and of equal keys the last stays.
    return {group["sae"]: group["lr"] for group in reversed(optimizer.param_groups)}


def forget(optimizer: torch.optim.Optimizer | LightningOptimizer, sae: SAE, latents_R: Tensor) -> None:
    """Clear AdamW's moments of latents (R,) that were given new weights."""
    for name, parameter in sae.named_parameters():
        if name in ("b_dec", "W_skip"):
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[parameter]:
                optimizer.state[parameter][moment].index_fill_(1 if name == "W_enc" else 0, latents_R, 0.0)
