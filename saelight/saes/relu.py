"""ReLU SAE with an L1 penalty weighted by decoder norms.

    f = ReLU(z + b_enc),   z = (x - b_dec) @ W_enc
    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ_i f_i ‖d_i‖

Bricken et al. 2023, "Towards Monosemanticity"; the decoder without constraint and the norm in the penalty from
Anthropic's April 2024 update. Shapes: B batch, D d_in, F d_sae.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saelight.ops.counts import firing_counts
from saelight.saes.base import SAE, Losses, Moment, Penalised, squared_error


@dataclass(kw_only=True)
class ReLU(Penalised):
    """ReLU latents, L1 penalty weighted by decoder norms."""

    def build(self, d_in: int, seed: int = 0) -> "ReLUSAE":
        return ReLUSAE(self, d_in, seed)


class ReLUSAE(SAE):
    unit_decoder = False
    calibrated = True
    config: ReLU

    def __init__(self, config: ReLU, d_in: int, seed: int = 0) -> None:
        super().__init__(config, d_in, seed)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.pre_activations(x) + self.b_enc)

    def losses(self, x_BD: Tensor, moment: Moment) -> Losses:
        f_BF = self.encode(x_BD)
        reconstruction = squared_error(x_BD, self.decode(f_BF))
        # Σ_i mean_B(f_i) ‖d_i‖: the mean first, so that no second (B, F) product is formed.
        penalty = (f_BF.mean(0, dtype=self.W_dec.dtype) * self.W_dec.norm(dim=1)).sum()
        total = reconstruction + self.config.coefficient(self.d_in, moment) * penalty
        return Losses(total, reconstruction, penalty, None, firing_counts(f_BF.detach()))
