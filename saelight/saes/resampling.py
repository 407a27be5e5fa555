"""Resampling of dead latents: a new start from the inputs that are reconstructed worst.

Bricken et al. 2023, "Towards Monosemanticity", appendix "Neuron Resampling". Shapes: N sample rows, D d_in (d_out of the
target), F d_sae, R resampled latents.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from saelight.ops.noise import generator
from saelight.saes.losses import Moment
from saelight.saes.sae import SAE
from saelight.schedules import Time, in_steps

_ENCODER_NORM = 0.2  # of the alive columns' mean norm


class Resampling(SAE):
    """For variants with `b_enc`."""

    @property
    @abstractmethod
    def resample_every(self) -> Time | None:
        """How often; None for never."""

    def resample_due(self, moment: Moment) -> bool:
        """Every `resample_every` steps, as long as a whole interval remains for the new latents to learn in."""
        every, done = self._interval(moment), moment.step + 1
        return done % every == 0 and done + every <= moment.horizon.steps

    def _interval(self, moment: Moment) -> float:
        """Optimizer steps from one resampling to the next; infinite for never."""
        return math.inf if self.resample_every is None else max(1, in_steps(self.resample_every, moment.horizon))

    @torch.no_grad()
    def resample(self, x_ND: Tensor, y_ND: Tensor, moment: Moment) -> Tensor:
        """Start latents anew that did not fire in the last half interval; return their numbers (R,).

        Each takes an input, drawn from the sample (N, d_in) with probability ∝ ‖y - ŷ‖⁴: its centred target becomes the
        decoder row, the centred input, at a fifth of the alive columns' mean norm, its encoder column; its bias is 0.
        Their optimizer state is the caller's to clear.
        """
        idle_F = self.tokens_since_fired >= self._interval(moment) / 2 * moment.horizon.tokens_per_step
        dead_R = idle_F.nonzero().squeeze(1)
        loss_N = (y_ND - self(x_ND)).square().sum(1).double()
        # Drawn on the CPU, so that ranks and devices agree.
        weight_N = loss_N.square().cpu()
        if len(dead_R) == 0 or not weight_N.sum() > 0:
            return dead_R[:0]
        again = len(dead_R) > int((weight_N > 0).sum())
        draw = generator(torch.device("cpu"), self.seed, moment.step, "resample")
        rows_R = torch.multinomial(weight_N, len(dead_R), again, generator=draw).to(x_ND.device)
        self.restart(dead_R, x_ND[rows_R], y_ND[rows_R])
        return dead_R

    @torch.no_grad()
    def restart(self, latents_R: Tensor, x_RD: Tensor, y_RD: Tensor) -> None:
        """Point latents (R,) at the inputs (R, d_in) and their targets (R, d_out)."""
        alive_F = torch.ones(self.d_sae, dtype=torch.bool, device=latents_R.device)
        alive_F[latents_R] = False
        columns_DA = self.W_enc[:, alive_F] if alive_F.any() else self.W_enc
        length = _ENCODER_NORM * columns_DA.norm(dim=0).mean()
        rest_RD = y_RD - self.reconstruct(y_RD.new_zeros(len(y_RD), self.d_sae), x_RD)  # b_dec, and a skip path
        decoder_RD = torch.nn.functional.normalize(rest_RD, dim=1)
        encoder_RD = torch.nn.functional.normalize(x_RD, dim=1) if self.is_transcoder else decoder_RD
        self.W_dec[latents_R] = decoder_RD
        self.W_enc[:, latents_R] = length * encoder_RD.T
        self.b_enc[latents_R] = 0.0
        self.tokens_since_fired[latents_R] = 0
