"""TopK SAE with an auxiliary loss on dead latents (arXiv 2406.04093).

    f = the ReLU(z + b_enc) of the k latents with the largest f ‖d‖ of each token, the rest 0,   z = (x - b_dec) @ W_enc
    loss = mean_B ‖x - x̂‖² / D + α · AuxK  (auxk.py)

Decoder rows d are free and start short, which trains better than rows of norm 1 (docs/quality.md); selection by what a
latent adds to x̂ makes the two the same kind of SAE. `decoder: unit` is the paper's.
Shapes: B batch, D d_in, F d_sae.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.dispatch import trains_sparsely
from saelight.ops.entries import AllEntries
from saelight.ops.normalisation import Normalisation
from saelight.ops.placed import Choose, PlacedEntries, encode_placed, largest_of_rows
from saelight.ops.select import largest, largest_of_each_token
from saelight.ranges import Duration, Range
from saelight.saes.auxk import AUX_COEFFICIENT, dead_used
from saelight.saes.dead_latents import TeachesDead
from saelight.saes.losses import Entries, Losses, Moment
from saelight.saes.memory_factors import KEPT
from saelight.saes.sae import SAEConfig
from saelight.schedules import Time, in_steps, ramp

_STARTING_NORM = 0.1
_SHORTEST = 1e-12  # a row of norm 0 is weighed by this


@dataclass(kw_only=True)
class TopK(SAEConfig):
    """A fixed number of latents for every token; dead latents learn to predict what the others miss."""

    nests: ClassVar[bool] = True

    k: Annotated[int, Range(least=1)] = 32
    """Latents kept per token: the L0."""
    decoder: Literal["free", "unit"] = "free"
    """Decoder rows without constraint, which start at norm 0.1 as encoder columns do, or kept at norm 1."""
    k_aux: Annotated[int | None, Range(least=1)] = None
    """Dead latents used by AuxK per token. Default: half of d_in (d_out of a transcoder), as in the paper."""
    aux_coefficient: Annotated[float, Range(least=0, most=1000)] = AUX_COEFFICIENT
    """α, the weight of AuxK. The paper's value; 0 turns it off."""
    initial_k: Annotated[int | None, Range(least=1)] = None
    """k at the start, from where it moves linearly to k: more latents get to learn. Default: k throughout."""
    k_anneal: Annotated[Time, Duration()] = 0.1
    """How long k takes from initial_k to k."""


class TopKSAE(TeachesDead, config=TopK):
    config: TopK
    memory = KEPT

    def __init__(self, config: TopK, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        for name in ("k", "initial_k", "k_aux"):
            if (getattr(config, name) or 0) > self.d_sae:
                raise UserError(f"{name} = {getattr(config, name)} exceeds d_sae = {self.d_sae}; lower it or widen the SAE")
        self.k_aux = dead_used(config.k_aux, self.d_out)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.starting_norm = 1.0 if self.unit_decoder else _STARTING_NORM

    @property
    def unit_decoder(self) -> bool:
        return self.config.decoder == "unit"

    @property
    def norms(self) -> Tensor | None:
        """‖d‖ (F,), by which latents are weighed in the selection; None where all are 1."""
        return None if self.unit_decoder else self.W_dec.detach().norm(dim=1).clamp_min(_SHORTEST)

    def fold_for_use(self, normalisation: Normalisation, target: Normalisation | None = None) -> None:
        super().fold_for_use(normalisation, target)
        if not self.unit_decoder:
            # The norms of free rows only set a pace of learning.
            self.fold_norms()

    def encode(self, x: Tensor) -> Tensor:
        return self.select(self.pre_activations(x, self.b_enc), self.config.k)

    def rank(self, pre: Tensor) -> Tensor:
        """What latents (..., F) are selected by."""
        by, norms_F = pre.abs() if self.signed else pre, self.norms
        return by if norms_F is None else by * norms_F

    def select(self, pre: Tensor, k: int) -> Tensor:
        """The latents (..., F) of pre-activations (..., F), k of each token."""
        by = self.rank(pre)
        indices = by.topk(k, dim=-1, sorted=False).indices
        return torch.zeros_like(pre).scatter(-1, indices, self.activation(pre.gather(-1, indices)))

    def activation(self, pre: Tensor) -> Tensor:
        """Of those kept, the latents."""
        return pre if self.signed else torch.relu(pre)

    def k_at(self, moment: Moment) -> int:
        """k at this moment."""
        k, start = self.config.k, self.config.initial_k
        if start is None:
            return k
        return round(start + (k - start) * ramp(moment.step, in_steps(self.config.k_anneal, moment.horizon)))

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        k = self.k_at(moment)
        if self.is_sparse(k, x_BD):
            trim = partial(largest_of_each_token, k=k)
            pre_E, entries = self.kept_pre_activations(
                largest(k), x_BD, self.b_enc, sparsely=True, trim=trim, weights_F=self.norms
            )
            return self.objective(self.activation(pre_E), entries, x_BD, y_BD, moment)
        if not trains_sparsely(x_BD):
            pre_E, placed = self.placed_pre_activations(largest_of_rows(k, self.signed), x_BD)
            return self.objective(self.activation(pre_E), placed, x_BD, y_BD, moment)
        f_BF = self.select(self.pre_activations(x_BD, self.b_enc), k)
        return self.objective(f_BF, AllEntries(), x_BD, y_BD, moment)

    def placed_pre_activations(self, choose: Choose, x_BD: Tensor) -> tuple[Tensor, PlacedEntries]:
        """The pre-activations that `choose` keeps of what latents are selected by."""
        centre_D = None if self.is_transcoder else self.b_dec
        return encode_placed(x_BD, centre_D, self.W_enc, self.b_enc, self.norms, choose)

    def is_sparse(self, k: int, x_BD: Tensor) -> bool:
        """Whether sparse execution pays at this k."""
        return trains_sparsely(x_BD) and k < self.sparse_below * self.d_sae

    def objective(self, f: Tensor, entries: Entries, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        """The reconstruction by the latents kept, and AuxK."""
        reconstruction = self.reconstruction(f, entries, x_BD, y_BD, moment)
        total, aux = reconstruction.loss, None
        if self.config.aux_coefficient > 0:
            aux = self.auxk(x_BD, reconstruction.error_BD)
            total = total + self.config.aux_coefficient * aux
        return Losses(total, reconstruction.mean_square, None, aux, entries.counts(f.detach()))
