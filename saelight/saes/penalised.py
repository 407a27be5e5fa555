"""SAEs with a sparsity penalty: its coefficient λ, fixed or moved until the SAE has the L0 that is wanted.

    loss = mean_B ‖y - ŷ‖² / D + (λ/√D) · mean_B penalty + α · aux

Shapes: B batch, D d_out, F d_sae.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.ops.counts import firing_counts
from saelight.ops.dispatch import may_ask
from saelight.ops.entries import KeptEntries
from saelight.ops.error import mean_square
from saelight.ops.select import above
from saelight.ranges import Duration, Range
from saelight.saes.losses import Entries, Losses, Moment, Reconstruction
from saelight.saes.sae import SAE, SAEConfig
from saelight.schedules import Horizon, Time, in_steps, ramp

# The controller of log λ: proportional to the distance of log L0 from its set-point, and to the sum of that. Gates and
# thresholds that close hardly open again, so that λ rises with care and falls at once. Tuned on MiniLM's layer 3.
_APPROACH = 0.5  # the share of training after which the set-point is the target itself
_ABOVE, _BELOW = 0.25, 1.0  # farther above or below the set-point than this, λ moves no faster
_SMOOTHING = 0.1  # one batch's L0 is noisy
_PROPORTIONAL = 4.0
_GAIN, _LARGEST_GAIN = 60.0, 0.1  # of the sum: over all of training, and in one step
_FEWEST_STEPS = 300  # in which λ finds the target (docs/saes.md)

_HYSTERESIS = 0.75  # an SAE near the limit does not change between dense and sparse from batch to batch


@dataclass(kw_only=True)
class Penalised(SAEConfig):
    """An SAE whose sparsity comes from a penalty, of a given weight or aimed at a given L0."""

    without_size: ClassVar[frozenset[str]] = SAEConfig.without_size | {"sparsity", "sparsity_warmup"}
    sparsity: Annotated[float | None, Range(least=0, most=10_000)] = None
    """The penalty's coefficient λ, in units that do not depend on d_in (docs/training.md). Default: the variant's own."""
    target_l0: Annotated[float | None, Range(above=0)] = None
    """The L0 to reach, in place of sparsity: λ is moved during training until the SAE fires that many latents per token."""
    sparsity_warmup: Annotated[Time, Duration()] = 0.05
    """λ ramps linearly from 0 over this time, so that latents are of use before they are penalised."""

    @property
    def default_sparsity(self) -> float:
        """λ when neither `sparsity` nor `target_l0` is given: L0 comes out at 1 to 5 % of d_sae on a language model."""
        return 0.1

    def check(self) -> None:
        super().check()
        self.check_target()

    def check_target(self) -> None:
        """Raise `UserError` for a target that goes with a weight."""
        if self.sparsity is not None and self.target_l0 is not None:
            raise UserError("sparsity and target_l0 exclude each other: give one of them")


class PenalisedSAE(SAE):
    config: Penalised
    training_state = (*SAE.training_state, "log_factor", "log_first_l0", "l0_gap", "is_sparse")

    log_factor: Tensor
    log_first_l0: Tensor
    l0_gap: Tensor
    is_sparse: Tensor

    def __init__(self, config: Penalised, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        if config.target_l0 is not None and config.target_l0 >= self.d_sae:
            raise UserError(f"target_l0 = {config.target_l0:g} is not below d_sae = {self.d_sae}; lower it or widen the SAE")
        # λ over its starting value, which moves with target_l0, and when p-annealing keeps the loss continuous.
        self.register_buffer("log_factor", torch.tensor(0.0))
        self.register_buffer("is_sparse", torch.tensor(False))
        if self.aims_at_l0:
            self.register_buffer("log_first_l0", torch.tensor(torch.nan))
            self.register_buffer("l0_gap", torch.tensor(torch.nan))

    @property
    def aims_at_l0(self) -> bool:
        """Whether λ is moved towards `target_l0`."""
        return self.config.target_l0 is not None

    def sparsity(self, moment: Moment) -> Tensor:
        """λ at this moment, a scalar: warm-up included."""
        start = self.config.default_sparsity if self.config.sparsity is None else self.config.sparsity
        warmup = in_steps(self.config.sparsity_warmup, moment.horizon)
        log_factor = self.log_factor
        if self.aims_at_l0:
            log_factor = log_factor + _PROPORTIONAL * self.l0_gap.clamp(-_BELOW, _ABOVE).nan_to_num()
        return log_factor.exp() * (start * ramp(moment.step, warmup))

    def coefficient(self, sparsity: Tensor) -> Tensor:
        """The factor on mean_B penalty: λ/√D."""
        return sparsity / self.d_out**0.5

    def possibly_active(self, x_BD: Tensor, bias_F: Tensor | None, bound: Tensor) -> tuple[Tensor, Entries]:
        """The pre-activations to train on: where they are sparse enough for that to be faster, those that exceed `bound`.

        Below it, a latent must be 0 and without gradient.
        """
        return self.kept_pre_activations(above(bound), x_BD, bias_F, sparsely=self.is_sparse_on(x_BD))

    def is_sparse_on(self, x_BD: Tensor) -> bool:
        """Whether a training step on this batch computes some entries alone."""
        return may_ask(x_BD) and bool(self.is_sparse)

    def density(self, pre: Tensor, entries: Entries, bound: Tensor) -> Tensor | float | None:
        """The share of all pre-activations that exceed `bound`; on devices that do not train sparsely nobody asks."""
        if isinstance(entries, KeptEntries):
            return entries.density
        return firing_counts(pre.detach() > bound).sum() / pre.numel() if may_ask(pre) else None

    def objective(
        self,
        reconstruction: Reconstruction,
        penalty: Tensor,
        counts_F: Tensor,
        moment: Moment,
        *,
        density: Tensor | float | None = None,
        aux: Tensor | None = None,
        aux_coefficient: float = 0.0,
        measured: list[Tensor] | None = None,
    ) -> Losses:
        """The terms put together.

        Args:
            penalty: mean_B of the penalty.
            counts_F: On how many tokens each latent fires.
            density: The share of entries that sparse execution would compute. Default: those that fire.
            aux: An auxiliary term, divided as its variant says.
            measured: What the variant's own `absorb` needs, beside this batch's L0 and density, which come first.
        """
        sparsity = self.sparsity(moment)
        total = reconstruction.loss + self.coefficient(sparsity) * penalty
        if aux is not None:
            total = total + aux_coefficient * aux
        vector = None
        # Nobody asks for what would neither move λ nor choose the execution.
        if measured or self.aims_at_l0 or may_ask(total):
            l0 = counts_F.sum().to(total.dtype) / len(reconstruction.error_BD)
            density = l0 / self.d_sae if density is None else torch.as_tensor(density).to(l0)
            vector = torch.stack([l0, density, *(measured or [])]).detach()
        return Losses(total, reconstruction.mean_square, penalty, aux, counts_F, sparsity, vector)

    def gates_error(self, gates: Tensor, entries: Entries, x_BD: Tensor, y_BD: Tensor, W_FD: Tensor | None = None) -> Tensor:
        """The auxiliary term of gated variants: mean_B ‖y - ŷ‖² / D with the gates themselves decoded, decoder detached.

        Args:
            W_FD: The decoder, if there is a copy of it in the products' precision.
        """
        y_hat_BD = entries.decode(gates, (self.W_dec if W_FD is None else W_FD).detach()) + self.b_dec.detach()
        if self.W_skip is not None:
            y_hat_BD = y_hat_BD + (x_BD @ self.W_skip).detach()
        return mean_square(y_BD, y_hat_BD.to(y_BD.dtype))[1]

    @torch.no_grad()
    def absorb(self, measured: Tensor, moment: Moment) -> None:
        if measured.is_cpu:
            limit = self.sparse_below * torch.where(self.is_sparse, 1.0, _HYSTERESIS)
            self.is_sparse.copy_(measured[1] < limit)
        target_l0 = self.config.target_l0
        if target_l0 is None or not self.aims_at_l0:
            return
        log_l0 = measured[0].clamp_min(1e-3).log()
        self.log_first_l0.copy_(torch.where(self.log_first_l0.isnan(), log_l0, self.log_first_l0))
        # In log L0 from the first to the target, slower and slower: thresholds that move go on moving.
        progress = min(1.0, (moment.step + 1) / (_APPROACH * moment.horizon.steps))
        progress = 1 - (1 - progress) ** 2
        set_point = (1 - progress) * self.log_first_l0 + progress * math.log(target_l0)
        self.l0_gap.copy_(torch.where(self.l0_gap.isnan(), log_l0 - set_point, self.l0_gap))
        self.l0_gap.lerp_(log_l0 - set_point, _SMOOTHING)
        # Until the set-point has arrived, a variant may be slow to answer: sum little up.
        gain = min(_LARGEST_GAIN, _GAIN / moment.horizon.steps) * progress**2
        self.log_factor.add_(self.l0_gap.clamp(-_BELOW, _ABOVE) * gain)

    def concerns(self, horizon: Horizon) -> list[str]:
        concerns = super().concerns(horizon)
        if not self.aims_at_l0:
            return concerns
        if horizon.steps < _FEWEST_STEPS:
            concerns.append(
                f"training has {horizon.steps} optimizer steps, and target_l0 is met from {_FEWEST_STEPS} on: train longer, "
                "take smaller batches, or expect another L0"
            )
        restart = self.config.schedule.last_restart(horizon)
        if restart > 0.75 * horizon.steps:
            concerns.append(
                f"the learning rate restarts at step {restart}, in the last quarter of training, which moves L0 off its "
                "target; set schedule.T_0 so that no cycle begins there, or schedule.kind trapezoid"
            )
        return concerns
