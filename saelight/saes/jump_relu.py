"""JumpReLU SAE: each latent has a threshold of its own, learned through straight-through gradients (arXiv 2407.14435).

    f = π · H(π - θ),   π = z + b_enc,   z = (x - b_dec) @ W_enc
    step    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ_i H(π_i - θ_i)
    tanh    penalty Σ_i tanh(4 f_i ‖d_i‖), decoder free, the jump's gradient to every parameter (Anthropic, January 2025)
    target  + λ (L0/L0* - 1)², undivided: the paper's loss for a wanted L0 (appendix F)

Beyond its kernel a threshold has no gradient, so that latents die of themselves and of fast learning: + α · AuxK (auxk.py)
teaches the dead, or in its place λ_P · mean_B Σ_dead ReLU(θ_i - π_i) ‖d_i‖ (Anthropic, January 2025).
Shapes: B batch, D d_in, F d_sae.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.dispatch import trains_sparsely
from saelight.ops.jump import jump, jump_and_steps, step
from saelight.ranges import Range
from saelight.saes.auxk import AUX_COEFFICIENT, dead_used
from saelight.saes.dead_latents import TeachesDead
from saelight.saes.losses import Entries, Losses, Moment
from saelight.saes.memory_factors import DENSE, GPUFactors
from saelight.saes.penalised import Penalised, PenalisedSAE
from saelight.schedules import Horizon

_REACH = 20.0  # e-folds of θ at a constant learning rate; schedules halve it
_KERNEL = 0.5001  # half of the kernel's width, in bandwidths, and the rounding of π
_STEEPNESS = 4.0  # of tanh, in units of a latent's norm


@dataclass(kw_only=True)
class JumpReLU(Penalised):
    """A learned threshold per latent, L0 penalised directly."""

    nests: ClassVar[bool] = True
    lr_factor: ClassVar[float] = 1.5

    penalty: Literal["step", "tanh", "target"] = "step"
    """step: the L0 itself, decoder rows of norm 1. tanh: a smooth stand-in for it, decoder without constraint. target: the
    squared distance to target_l0, relative, with λ = 4 unless sparsity says otherwise."""
    bandwidth: Annotated[float | None, Range(above=0, most=1000)] = None
    """ε, the width around the threshold in which it has gradient. Default: 0.025 √d_in for step and target, in which tokens
    enough fall in short runs (the paper's is 0.001 √d_in); 2 for tanh."""
    initial_threshold: Annotated[float | None, Range(above=0, most=1000)] = None
    """θ at the start. Default: 0.005 √d_in for step and target (the paper's is 0.001 √d_in); 0.1 for tanh."""
    threshold_lr: Annotated[float | None, Range(above=0, most=10)] = None
    """Peak learning rate of log θ. Default: enough for θ to grow by e^10 in the whole of training, at least lr: thresholds
    start far below what they come to, and AdamW moves log θ by no more than its learning rate in a step."""
    aux_coefficient: Annotated[float | None, Range(least=0, most=1000)] = None
    """α, the weight of AuxK. Default: 1/32, TopK's, or 0 with `pre_activation_coefficient`."""
    k_aux: Annotated[int | None, Range(least=1)] = None
    """Dead latents used by AuxK per token. Default: half of d_in (d_out of a transcoder)."""
    pre_activation_coefficient: Annotated[float, Range(least=0, most=1000)] = 0.0
    """λ_P, the weight of another loss that brings dead latents back; Anthropic's is 3e-6."""

    @property
    def default_sparsity(self) -> float:
        return {"step": 0.02, "tanh": 0.008, "target": 4.0}[self.penalty]

    def check(self) -> None:
        super().check()
        if self.aux_coefficient and self.pre_activation_coefficient:
            raise UserError("aux_coefficient and pre_activation_coefficient exclude each other: give one of them")

    def check_target(self) -> None:
        if self.penalty != "target":
            super().check_target()
        elif self.target_l0 is None:
            raise UserError("penalty target needs target_l0: the L0 to reach")


class JumpReLUSAE(TeachesDead, PenalisedSAE, config=JumpReLU):
    memory = DENSE._replace(gpu=GPUFactors(mixed=7.5, full=13.2))
    calibrated = True
    config: JumpReLU
    training_state = (*TeachesDead.training_state, *PenalisedSAE.training_state)

    def __init__(self, config: JumpReLU, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        if (config.k_aux or 0) > self.d_sae:
            raise UserError(f"k_aux = {config.k_aux} exceeds d_sae = {self.d_sae}; lower it or widen the SAE")
        smooth, size = config.penalty == "tanh", math.sqrt(d_in)
        self.bandwidth = config.bandwidth or (2.0 if smooth else 0.025 * size)
        threshold = config.initial_threshold or (0.1 if smooth else 0.005 * size)
        self.k_aux = dead_used(config.k_aux, self.d_out)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.log_threshold = nn.Parameter(torch.full((self.d_sae,), threshold).log())

    @property
    def unit_decoder(self) -> bool:
        return self.config.penalty != "tanh"

    @property
    def aims_at_l0(self) -> bool:
        return self.config.penalty != "target" and super().aims_at_l0

    @property
    def aux_coefficient(self) -> float:
        """The weight of the term on dead latents, whichever it is."""
        aux, below = self.config.aux_coefficient, self.config.pre_activation_coefficient
        return below or (AUX_COEFFICIENT if aux is None else aux)

    @property
    def threshold(self) -> Tensor:
        """θ, (F,)."""
        return self.log_threshold.exp()

    def learning_rates(self, horizon: Horizon) -> dict[str, float]:
        return {"log_threshold": self.config.threshold_lr or max(self.peak_lr(horizon), _REACH / horizon.steps)}

    def stretch_latents(self, by_F: Tensor) -> None:
        super().stretch_latents(by_F)
        self.log_threshold.add_(by_F.log())

    def encode(self, x: Tensor) -> Tensor:
        return self._latents(self.pre_activations(x, self.b_enc), self.threshold)

    def _latents(self, pre: Tensor, theta: Tensor) -> Tensor:
        return jump(pre, theta, self.bandwidth, through=self.config.penalty == "tanh")

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        # Where the jump's kernel reaches, θ has gradient: half a bandwidth below it.
        theta_F = self.threshold
        lowest_F = theta_F.detach() - _KERNEL * self.bandwidth
        pre, entries = self.possibly_active(x_BD, self.b_enc, lowest_F)
        if self.config.penalty == "tanh":
            f = self._latents(pre, entries.at(theta_F))
            penalty = torch.tanh(_STEEPNESS * f * entries.at(self.W_dec.norm(dim=1))).sum() / len(x_BD)
            counts_F = entries.counts(f.detach())
        else:
            f, steps, counts_F = self._jump_and_steps(pre, theta_F, entries)
            penalty = self._penalty(steps / len(x_BD))
        reconstruction = self.reconstruction(f, entries, x_BD, y_BD, moment)
        aux = self._for_the_dead(x_BD, reconstruction.error_BD)
        density = self.density(pre, entries, lowest_F)
        return self.objective(
            reconstruction, penalty, counts_F, moment, density=density, aux=aux, aux_coefficient=self.aux_coefficient
        )

    def _jump_and_steps(self, pre: Tensor, theta_F: Tensor, entries: Entries) -> tuple[Tensor, Tensor, Tensor]:
        """The latents, the sum of the steps, and on how many tokens each latent fires."""
        if not trains_sparsely(pre):
            return jump_and_steps(pre, theta_F, self.bandwidth)
        theta = entries.at(theta_F)
        f = self._latents(pre, theta)
        return f, step(pre, theta, self.bandwidth).sum(), entries.counts(f.detach())

    def _penalty(self, l0: Tensor) -> Tensor:
        if self.config.penalty == "step":
            return l0
        assert self.config.target_l0 is not None  # the config's check
        return (l0 / self.config.target_l0 - 1).square()

    def coefficient(self, sparsity: Tensor) -> Tensor:
        return sparsity if self.config.penalty == "target" else super().coefficient(sparsity)

    def _for_the_dead(self, x_BD: Tensor, error_BD: Tensor) -> Tensor | None:
        """AuxK, or mean_B Σ ReLU(θ - π) ‖d‖ over the dead latents."""
        if self.aux_coefficient == 0:
            return None
        if self.config.pre_activation_coefficient == 0:
            return self.auxk(x_BD, error_BD)
        if (taught := self.taught(x_BD)) is None:
            return error_BD.new_zeros(())
        below_BA = torch.relu(self.threshold[taught.latents_A] - taught.pre_BA)
        return (below_BA * taught.W_dec_AD.norm(dim=1)).sum() / len(x_BD)
