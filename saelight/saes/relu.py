"""ReLU SAE with an L1 (or Lp) penalty weighted by decoder norms.

    f = ReLU(z + b_enc),   z = (x - b_dec) @ W_enc
    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ_i (f_i ‖d_i‖)^p

Bricken et al. 2023, "Towards Monosemanticity"; the decoder without constraint and the norm in the penalty from
Anthropic's April 2024 update. p-annealing (p < 1 at the end, arXiv 2408.00113) moves p in equal updates; at each, λ is
multiplied by the ratio of the old penalty to the new one, so that the loss is continuous. Resampling: `resampling.py`.
Shapes: B batch, D d_in, F d_sae.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from saelight.ops.counts import firing_counts
from saelight.ops.dispatch import trains_sparsely
from saelight.ops.entries import AllEntries
from saelight.ops.matmul import weighed_product
from saelight.ops.select import above
from saelight.ranges import Duration, Range
from saelight.saes.losses import Entries, Losses, Moment
from saelight.saes.memory_factors import MemoryFactors
from saelight.saes.penalised import Penalised, PenalisedSAE
from saelight.saes.resampling import Resampling
from saelight.schedules import Horizon, Time, in_steps

_ZERO = torch.tensor(0.0)
_WINDOW = 10  # batches over which the penalties are compared when p moves


@dataclass(kw_only=True)
class ReLU(Penalised):
    """ReLU latents, L1 penalty weighted by decoder norms."""

    nests: ClassVar[bool] = True
    lr_factor: ClassVar[float] = 1.5

    p: Annotated[float, Range(above=0, most=1)] = 1.0
    """The penalty's power. Below 1 it is closer to L0, and shrinks strong latents less."""
    p_end: Annotated[float | None, Range(above=0, most=1)] = None
    """The power at the end: p moves there in equal updates. The paper's choice is 0.2 to 0.5. Default: p stays."""
    p_updates: Annotated[int, Range(least=1, most=1_000_000)] = 10
    """Updates of p between anneal_start and the end of training."""
    anneal_start: Annotated[Time, Duration(whole=False)] = 0.15
    """When p begins to move."""
    resample_every: Annotated[Time | None, Duration(zero=False)] = None
    """Give dead latents a new start from badly reconstructed inputs this often (Bricken et al. 2023). Default: never."""


class ReLUSAE(Resampling, PenalisedSAE, config=ReLU):
    unit_decoder = False
    calibrated = True
    config: ReLU
    memory = MemoryFactors(parameters=8.3, latents=0.0, latents_kept=1.5)
    training_state = (*PenalisedSAE.training_state, "recent_penalties")

    recent_penalties: Tensor

    def __init__(self, config: ReLU, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        if config.p_end is not None:
            # The penalties of the last batches, newest last, with p as it is and as it will be; NaN: none yet.
            self.register_buffer("recent_penalties", torch.full((_WINDOW, 2), torch.nan))

    @property
    def resample_every(self) -> Time | None:
        return self.config.resample_every

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.pre_activations(x, self.b_enc))

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        if self.decodes_once and self.config.p == 1 and self.config.p_end is None and not trains_sparsely(x_BD):
            f_BF = self.pre_activations(x_BD, self.b_enc, rectified=True)
            decoded_BD, penalty = weighed_product(f_BF, self.W_dec)
            reconstruction = self.reconstruction_of(decoded_BD, x_BD, y_BD)
            return self.objective(reconstruction, penalty / len(x_BD), firing_counts(f_BF.detach()), moment)
        f, entries = self._latents(x_BD)
        p = self.power(moment.step, moment.horizon)
        penalty = self.penalty(f, entries, p) / len(x_BD)
        measured = []
        if self.config.p_end is not None:
            with torch.no_grad():
                after = self.power(moment.step, moment.horizon, ahead=1)
                next_penalty = penalty if after == p else self.penalty(f, entries, after) / len(x_BD)
                measured = [penalty.detach(), next_penalty.detach()]
        reconstruction = self.reconstruction(f, entries, x_BD, y_BD, moment)
        return self.objective(reconstruction, penalty, entries.counts(f.detach()), moment, measured=measured)

    def _latents(self, x_BD: Tensor) -> tuple[Tensor, Entries]:
        if not self.is_sparse_on(x_BD):
            return self.pre_activations(x_BD, self.b_enc, rectified=True), AllEntries()
        pre_E, entries = self.kept_pre_activations(above(_ZERO), x_BD, self.b_enc, sparsely=True)
        return torch.relu(pre_E), entries

    def penalty(self, f: Tensor, entries: Entries, p: float) -> Tensor:
        """Σ_B Σ_i (f_i ‖d_i‖)^p, with gradient 0 where f = 0."""
        norms_F = self.W_dec.norm(dim=1)
        if p == 1:
            # The sum over tokens first, so that no second (B, F) product is formed.
            return (entries.per_latent(f) * norms_F).sum()
        active = f > 0
        # A safe base first: the power's gradient at 0 is infinite.
        powers = torch.where(active, f.to(self.W_dec.dtype) * entries.at(norms_F), 1.0) ** p
        return torch.where(active, powers, 0.0).sum()

    def power(self, step: int, horizon: Horizon, ahead: int = 0) -> float:
        """p at `step`, or `ahead` updates later."""
        if self.config.p_end is None:
            return self.config.p
        start, updates = in_steps(self.config.anneal_start, horizon), self.config.p_updates
        interval = max(1, (horizon.steps - start) // updates)
        done = 0 if step < start else (step - start) // interval + 1
        return self.config.p + (self.config.p_end - self.config.p) * min(updates, done + ahead) / updates

    @torch.no_grad()
    def absorb(self, measured: Tensor, moment: Moment) -> None:
        super().absorb(measured, moment)
        if self.config.p_end is None:
            return
        self.recent_penalties.copy_(torch.cat([self.recent_penalties[1:], measured[None, 2:]]))
        if self.power(moment.step + 1, moment.horizon) != self.power(moment.step, moment.horizon):
            if not self.aims_at_l0:  # which finds its own λ
                before, after = self.recent_penalties.nanmean(0)
                ratio = torch.where((before > 0) & (after > 0), before / after, 1.0)
                self.log_factor.add_(ratio.log())
            self.recent_penalties.fill_(torch.nan)
