"""Hard concrete SAE: the expected L0 itself is penalised, through random gates (arXiv 1712.01312).

    f = g ⊙ ReLU(z + b_mag),   z = (x - b_dec) @ W_enc
    g = a hard concrete gate with log α = z + b_enc (input_dependent), or log α a free parameter of each latent
    loss = mean_B ‖x - x̂‖² / D + (λ/√D) · mean_B Σ_i P(g_i > 0)

At inference gates have no noise (`ops/gates.py`). With free log α a gate is open for all tokens or for none: that prunes
latents, and leaves the sparsity of the rest to ReLU. Shapes: B batch, D d_in, F d_sae.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops import gates
from saelight.ops.counts import firing_counts
from saelight.ops.dispatch import works_in_whole
from saelight.ops.entries import AllEntries
from saelight.ops.gating import rectified_affine, where_above
from saelight.ops.noise import uniform
from saelight.ranges import Range
from saelight.saes.losses import Losses, Moment
from saelight.saes.memory_factors import DENSE, GPUFactors
from saelight.saes.penalised import Penalised, PenalisedSAE


@dataclass(kw_only=True)
class HardConcretePenalised(Penalised):
    """What the variants with hard concrete gates share."""

    lr_factor: ClassVar[float] = 4.0

    initial_beta: Annotated[float, Range(above=0, most=100)] = 0.2
    """The gates' temperature β at the start; low is nearer to on/off, with less gradient. At the paper's 2/3 gates that
    depend on the token stay undecided until the penalty closes most of them for good."""
    final_beta: Annotated[float | None, Range(above=0, most=100)] = None
    """β at the end of training, reached linearly. Default: β stays."""


@dataclass(kw_only=True)
class HardConcrete(HardConcretePenalised):
    """Random gates on ReLU latents, the expected number of open gates penalised."""

    input_dependent: bool = True
    """Gates that depend on the token. false: one gate per latent for all tokens, which only prunes latents."""

    @property
    def default_sparsity(self) -> float:
        return 0.04 if self.input_dependent else 0.005

    def check_target(self) -> None:
        super().check_target()
        if self.target_l0 is not None and not self.input_dependent:
            raise UserError(
                "target_l0 needs input_dependent gates: gates that are the same for all tokens cannot aim at an "
                "L0 per token; give sparsity instead"
            )


class GatesAtRandom(PenalisedSAE):
    memory = DENSE._replace(gpu=GPUFactors(mixed=17.5, full=37.7, parameters=0.5))
    config: HardConcretePenalised

    def noise(self, like_BF: Tensor, moment: Moment) -> Tensor:
        """The uniform numbers (B, F) of one batch's gates, the same whenever that batch is computed."""
        key = self.seed, moment.step, moment.micro_batch, moment.rank, "gates"
        return uniform(like_BF.shape, like_BF, *key)

    def counts(self, logits: Tensor, magnitude_BF: Tensor) -> Tensor:
        """On how many tokens each latent would fire at inference (F,): noise opens nearly every gate now and then."""
        if logits.shape == magnitude_BF.shape and works_in_whole(logits):
            return firing_counts(where_above(magnitude_BF.detach(), logits.detach(), gates.OPEN))
        return firing_counts((logits.detach() > gates.OPEN) & (magnitude_BF.detach() > 0))

    def beta(self, moment: Moment) -> float:
        """β at this moment."""
        start, end = self.config.initial_beta, self.config.final_beta
        return start if end is None else start + (end - start) * min(1.0, moment.step / moment.horizon.steps)


class HardConcreteSAE(GatesAtRandom, config=HardConcrete):
    unit_decoder = False
    calibrated = True
    config: HardConcrete

    def __init__(self, config: HardConcrete, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))
        if config.input_dependent:
            self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        else:
            self.log_alpha = nn.Parameter(torch.zeros(self.d_sae))

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_enc if self.config.input_dependent else self.b_mag

    def encode(self, x: Tensor) -> Tensor:
        z = self.pre_activations(x)
        return gates.expected(self.logits(z)) * torch.relu(z + self.b_mag)

    def stretch(self, factor: float) -> None:
        # Not W_enc: gates whose logits are all near 0 cannot tell tokens apart, and the penalty then closes them for good.
        self.W_dec.mul_(factor)

    def add_to_z(self, by_F: Tensor) -> None:
        self.b_mag.add_(by_F)
        if self.config.input_dependent:
            self.b_enc.add_(by_F)

    def stretch_latents(self, by_F: Tensor) -> None:
        raise UserError("HardConcrete's magnitudes cannot be stretched without its gates: its decoder rows keep their norms")

    def logits(self, z: Tensor) -> Tensor:
        """log α: (..., F), or (F,) when it does not depend on the token."""
        return z + self.b_enc if self.config.input_dependent else self.log_alpha

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        if self.config.input_dependent and works_in_whole(x_BD):
            # The logits come from the product, and the magnitudes from them.
            logits = self.pre_activations(x_BD, self.b_enc)
            magnitude_BF = rectified_affine(logits, None, self.b_mag - self.b_enc)
        else:
            z_BF = self.pre_activations(x_BD)
            logits, magnitude_BF = self.logits(z_BF), torch.relu(z_BF + self.b_mag)
        # In the weights' precision: half precision has too few numbers between 0 and 1.
        u_BF = self.noise(self.b_mag.expand_as(magnitude_BF), moment)
        gates_BF, open_sum = gates.sampled(logits, u_BF, self.beta(moment))
        penalty = open_sum / (len(x_BD) if self.config.input_dependent else 1)
        counts_F = self.counts(logits, magnitude_BF)
        reconstruction = self.reconstruction(gates_BF * magnitude_BF, AllEntries(), x_BD, y_BD, moment)
        return self.objective(reconstruction, penalty, counts_F, moment)
