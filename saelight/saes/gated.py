"""Gated SAE: which latents fire and how strongly are decided apart (arXiv 2404.16014).

    π_gate = z + b_gate,   π_mag = e^{r_mag} ⊙ z + b_mag,   z = (x - b_dec) @ W_enc
    f = 1[π_gate > 0] ⊙ ReLU(π_mag)
    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ ReLU(π_gate)
           + α · mean_B ‖x - (ReLU(π_gate) @ sg[W_dec] + sg[b_dec])‖² / D

The gate has gradient only through the last two terms; sg keeps the auxiliary one from moving the decoder (eq. 8).
Shapes: B batch, D d_in, F d_sae.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from saelight.ops.dispatch import trains_sparsely
from saelight.ops.entries import AllEntries
from saelight.ops.gating import gated
from saelight.ops.matmul import compute_dtype
from saelight.ranges import Range
from saelight.saes.losses import Entries, Losses, Moment
from saelight.saes.penalised import Penalised, PenalisedSAE


@dataclass(kw_only=True)
class Gated(Penalised):
    """Gates and magnitudes from one encoder, L1 on the gates, an auxiliary reconstruction from them."""

    default_sparsity = 0.2
    lr_factor: ClassVar[float] = 1.5

    aux_coefficient: Annotated[float, Range(least=0, most=1000)] = 1.0
    """α, the weight of the auxiliary reconstruction. The paper's value."""


class GatedSAE(PenalisedSAE, config=Gated):
    calibrated = True
    config: Gated

    def __init__(self, config: Gated, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_gate = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_gate

    def encode(self, x: Tensor) -> Tensor:
        z = self.pre_activations(x)
        return self._latents(z, z + self.b_gate, AllEntries())

    def _latents(self, z: Tensor, gate: Tensor, entries: Entries) -> Tensor:
        return torch.relu(entries.at(self.r_mag.exp()) * z + entries.at(self.b_mag)) * (gate > 0)

    def add_to_z(self, by_F: Tensor) -> None:
        self.b_gate.add_(by_F)
        self.b_mag.add_(self.r_mag.double().exp() * by_F)

    def stretch_latents(self, by_F: Tensor) -> None:
        for weight in (self.W_enc, self.b_gate, self.b_mag):
            weight.mul_(by_F)

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        if not trains_sparsely(x_BD):
            return self._dense_losses(x_BD, y_BD, moment)
        lowest_F = -self.b_gate.detach()
        z, entries = self.possibly_active(x_BD, None, lowest_F)
        gate = torch.relu(z + entries.at(self.b_gate))
        f = self._latents(z, gate, entries)
        return self.objective(
            self.reconstruction(f, entries, x_BD, y_BD, moment),
            entries.per_latent(gate).sum() / len(x_BD),
            entries.counts(f.detach()),
            moment,
            density=self.density(z, entries, lowest_F),
            aux=self.gates_error(gate, entries, x_BD, y_BD),
            aux_coefficient=self.config.aux_coefficient,
        )

    def _dense_losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        """The same where all is computed anyway: from π_gate alone, of which π_mag is a function."""
        entries, scale_F = AllEntries(), self.r_mag.exp()
        gate_BF = self.pre_activations(x_BD, self.b_gate, rectified=True)
        f_BF, gate_sum = gated(gate_BF, scale_F, self.b_mag - scale_F * self.b_gate)
        # One copy of the decoder in the products' precision for both of them.
        W_FD = self.W_dec.to(compute_dtype(x_BD))
        return self.objective(
            self.reconstruction_of(entries.decode(f_BF, W_FD), x_BD, y_BD),
            gate_sum / len(x_BD),
            entries.counts(f_BF.detach()),
            moment,
            aux=self.gates_error(gate_BF, entries, x_BD, y_BD, W_FD),
            aux_coefficient=self.config.aux_coefficient,
        )
