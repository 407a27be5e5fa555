"""TopK SAE with an auxiliary loss on dead latents (arXiv 2406.04093).

    f = the k largest of ReLU(z + b_enc) of each token, the rest 0,   z = (x - b_dec) @ W_enc
    loss = mean_B ‖x - x̂‖² / D + α · ‖sg[e] - ê‖² / ‖sg[e] - mean_B sg[e]‖²,   e = x - x̂

ê decodes, without bias, the k_aux largest pre-activations among the dead latents (AuxK, appendix A.2).
Shapes: B batch, D d_in, F d_sae, A dead latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.counts import firing_counts
from saelight.saes.base import SAE, Losses, Moment, SAEConfig


@dataclass(kw_only=True)
class TopK(SAEConfig):
    """A fixed number of latents for every token; dead latents learn to predict what the others miss."""

    k: int = 32
    """Latents kept per token: the L0."""
    k_aux: int | None = None
    """Dead latents used by AuxK per token. Default: d_in / 2, as in the paper."""
    aux_coefficient: float = 1 / 32
    """α, the weight of AuxK. The paper's value; 0 turns it off."""

    def check(self) -> None:
        super().check()
        for name in ("k", "k_aux"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.aux_coefficient < 0:
            raise UserError(f"aux_coefficient must not be negative, got {self.aux_coefficient}")

    def default_lr(self, d_sae: int) -> float:
        # The paper's scaling, for runs of 100M tokens and more.
        return 2e-4 / (d_sae / 2**14) ** 0.5

    def build(self, d_in: int, seed: int = 0) -> "TopKSAE":
        return TopKSAE(self, d_in, seed)


class TopKSAE(SAE):
    config: TopK

    def __init__(self, config: TopK, d_in: int, seed: int = 0) -> None:
        super().__init__(config, d_in, seed)
        if config.k > self.d_sae:
            raise UserError(f"k = {config.k} exceeds d_sae = {self.d_sae}; lower k or widen the SAE")
        self.k_aux = config.k_aux or max(1, d_in // 2)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))

    def encode(self, x: Tensor) -> Tensor:
        return self._select(self.pre_activations(x) + self.b_enc)

    def _select(self, pre: Tensor) -> Tensor:
        values, indices = torch.relu(pre).topk(self.config.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, indices, values)

    def losses(self, x_BD: Tensor, moment: Moment) -> Losses:
        pre_BF = self.pre_activations(x_BD) + self.b_enc
        f_BF = self._select(pre_BF)
        e_BD = x_BD - self.decode(f_BF)
        reconstruction = e_BD.square().mean()
        aux = self._auxk(pre_BF, e_BD.detach())
        total = reconstruction + self.config.aux_coefficient * aux
        return Losses(total, reconstruction, None, aux, firing_counts(f_BF.detach()))

    def _auxk(self, pre_BF: Tensor, e_BD: Tensor) -> Tensor:
        """AuxK's ratio; 0 while no latent is dead, or where the error does not vary."""
        zero = e_BD.new_zeros(())
        if self.config.aux_coefficient == 0:
            return zero
        dead_A = self.dead().nonzero().squeeze(1)
        if len(dead_A) == 0:
            return zero
        pre_BA = pre_BF[:, dead_A]
        values, indices = pre_BA.topk(min(self.k_aux, len(dead_A)), dim=1, sorted=False)
        e_hat_BD = torch.zeros_like(pre_BA).scatter(1, indices, values) @ self.W_dec[dead_A]
        variation = (e_BD - e_BD.mean(0)).square().sum()
        # Division by a safe number first: the gradient of a masked 0/0 would still be NaN.
        safe = variation.isfinite() & (variation > 0)
        return (e_BD - e_hat_BD).square().sum() / torch.where(safe, variation, 1.0) * safe
