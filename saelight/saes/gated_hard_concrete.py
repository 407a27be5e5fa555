"""Gated SAE whose gates are hard concrete: the expected L0 penalised, magnitudes apart.

    π_gate = z + b_gate,   g = a hard concrete gate with log α = π_gate,   z = (x - b_dec) @ W_enc
    f = g ⊙ ReLU(e^{r_mag} ⊙ z + b_mag)
    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ_i P(g_i > 0) + α · mean_B ‖x - (g @ sg[W_dec] + sg[b_dec])‖² / D

The auxiliary path decodes the gates themselves. arXiv 2404.16014 with the gates of arXiv 1712.01312 (`ops/gates.py`).
Shapes: B batch, D d_in, F d_sae.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from saelight.ops import gates
from saelight.ops.dispatch import works_in_whole
from saelight.ops.entries import AllEntries
from saelight.ops.gating import rectified_affine
from saelight.ranges import Range
from saelight.saes.hard_concrete import GatesAtRandom, HardConcretePenalised
from saelight.saes.losses import Losses, Moment


@dataclass(kw_only=True)
class GatedHardConcrete(HardConcretePenalised):
    """Random gates and magnitudes from one encoder, an auxiliary reconstruction from the gates."""

    aux_coefficient: Annotated[float, Range(least=0, most=1000)] = 1.0
    """α, the weight of the auxiliary reconstruction."""


class GatedHardConcreteSAE(GatesAtRandom, config=GatedHardConcrete):
    calibrated = True
    config: GatedHardConcrete

    def __init__(self, config: GatedHardConcrete, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_gate = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_gate

    def encode(self, x: Tensor) -> Tensor:
        z = self.pre_activations(x)
        return gates.expected(z + self.b_gate) * self._magnitudes(z)

    def stretch(self, factor: float) -> None:
        # Not W_enc: gates whose logits are all near 0 cannot tell tokens apart, and the penalty then closes them for good.
        self.r_mag.add_(math.log(factor))

    def add_to_z(self, by_F: Tensor) -> None:
        self.b_gate.add_(by_F)
        self.b_mag.add_(self.r_mag.double().exp() * by_F)

    def stretch_latents(self, by_F: Tensor) -> None:
        # Not W_enc, which the gates' logits come from too.
        self.r_mag.add_(by_F.log())
        self.b_mag.mul_(by_F)

    def _magnitudes(self, z: Tensor) -> Tensor:
        return torch.relu(self.r_mag.exp() * z + self.b_mag)

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        if works_in_whole(x_BD):
            # The logits come from the product, and the magnitudes from them.
            logits_BF, scale_F = self.pre_activations(x_BD, self.b_gate), self.r_mag.exp()
            magnitude_BF = rectified_affine(logits_BF, scale_F, self.b_mag - scale_F * self.b_gate)
        else:
            z_BF = self.pre_activations(x_BD)
            logits_BF, magnitude_BF = z_BF + self.b_gate, self._magnitudes(z_BF)
        u_BF = self.noise(self.b_mag.expand_as(magnitude_BF), moment)
        gates_BF, open_sum = gates.sampled(logits_BF, u_BF, self.beta(moment))
        return self.objective(
            self.reconstruction(gates_BF * magnitude_BF, AllEntries(), x_BD, y_BD, moment),
            open_sum / len(x_BD),
            self.counts(logits_BF, magnitude_BF),
            moment,
            aux=self.gates_error(gates_BF, AllEntries(), x_BD, y_BD),
            aux_coefficient=self.config.aux_coefficient,
        )
