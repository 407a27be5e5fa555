"""Matching pursuit SAE: one latent at a time, each explaining what those before it left over (arXiv 2506.03093).

    r = x - b_dec;  up to k times:  i = argmax ⟨r, d_i⟩,  f_i = ⟨r, d_i⟩,  r ← r - f_i d_i
    stop when ⟨r, d_i⟩ ≤ 0, when ‖r‖² < 0.01 ‖x‖², or when i comes a second time
    loss = mean_B ‖x - x̂‖² / D

The dictionary of unit rows is encoder and decoder at once. Which latents are chosen has no gradient; their values have,
through all steps. Shapes: B batch, D d_in, F d_sae, K steps.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.counts import firing_counts
from saelight.ops.normalisation import Normalisation
from saelight.ranges import Range
from saelight.saes.losses import Losses, Moment
from saelight.saes.memory_factors import KEPT, GPUFactors
from saelight.saes.sae import SAE, SAEConfig

_EXPLAINED = 0.01  # a residual below this share of ‖x‖² is noise


@dataclass(kw_only=True)
class MatchingPursuit(SAEConfig):
    """Greedy pursuit with a tied dictionary: encoding takes k passes over it."""

    k: Annotated[int, Range(least=1)] = 32
    """Steps, and so latents, per token at most."""

    def check(self) -> None:
        super().check()
        for name, only in (("tied_init", True), ("encoder_scale", 1.0)):
            if getattr(self, name) != only:
                raise UserError(f"{name} means nothing here, where the encoder is the decoder: drop it")


class MatchingPursuitSAE(SAE, config=MatchingPursuit):
    transcodes = False
    config: MatchingPursuit
    # Each of the k choices keeps what is left of the batch: 8 bytes a latent, and 8 k d_in / d_sae, here for 4.
    memory = KEPT._replace(gpu=GPUFactors(mixed=38.0, full=38.0, parameters=2.2))
    scale: Tensor
    origin: Tensor

    def __init__(self, config: MatchingPursuit, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        if config.k > self.d_sae:
            raise UserError(f"k = {config.k} exceeds d_sae = {self.d_sae}; lower k or widen the SAE")
        self.register_parameter("W_enc", None)  # the dictionary itself encodes
        # Rows keep norm 1 in the published SAE too, so the data's own scale has a place apart; so has their mean, which a
        # token's size is measured from.
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("origin", torch.zeros(d_in))

    def encode(self, x: Tensor) -> Tensor:
        rows_BD = x.reshape(-1, x.shape[-1])
        return self._latents(rows_BD).view(*x.shape[:-1], self.d_sae)

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec / self.scale + self.b_dec

    def _latents(self, x_BD: Tensor) -> Tensor:
        centred_BD = (x_BD - self.b_dec) * self.scale
        with torch.no_grad():
            chosen_BK, taken_BK = self._choose(centred_BD, ((x_BD - self.origin) * self.scale).square().sum(1))
        residual_BD, values = centred_BD, []
        for i_B, taken_B in zip(chosen_BK.T, taken_BK.T, strict=True):
            d_BD = self.W_dec[i_B]
            # A step that was not taken adds 0 to a latent that another step may have set.
            value_B = (residual_BD * d_BD).sum(1) * taken_B
            residual_BD = residual_BD - value_B[:, None] * d_BD
            values.append(value_B)
        f_BF = centred_BD.new_zeros(len(x_BD), self.d_sae)
        return f_BF.scatter_add(1, chosen_BK, torch.stack(values, 1))

    def _choose(self, residual_BD: Tensor, x_square_B: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of each step (B, K), and whether the step was taken (B, K)."""
        residual_BD, W_dec_FD = residual_BD.clone(), self.W_dec
        going_B = torch.ones(len(residual_BD), dtype=torch.bool, device=residual_BD.device)
        used_BF = torch.zeros(len(residual_BD), self.d_sae, dtype=torch.bool, device=residual_BD.device)
        chosen, taken = [], []
        for _ in range(self.config.k):
            going_B = going_B & (residual_BD.square().sum(1) >= _EXPLAINED * x_square_B)
            value_B, i_B = (residual_BD @ W_dec_FD.T).to(residual_BD.dtype).max(1)
            going_B = going_B & (value_B > 0) & ~used_BF.gather(1, i_B[:, None])[:, 0]
            d_BD = W_dec_FD[i_B]
            value_B = (residual_BD * d_BD).sum(1) * going_B
            residual_BD -= value_B[:, None] * d_BD
            used_BF.scatter_(1, i_B[:, None], going_B[:, None] | used_BF.gather(1, i_B[:, None]))
            chosen.append(i_B)
            taken.append(going_B)
        return torch.stack(chosen, 1), torch.stack(taken, 1)

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        f_BF = self._latents(x_BD)
        loss = (y_BD - self.decode(f_BF).to(y_BD.dtype)).square().mean()
        return Losses(loss, loss, None, None, firing_counts(f_BF.detach()))

    def decayed_parameters(self) -> list[nn.Parameter]:
        return []

    @torch.no_grad()
    def fold(self, normalisation: Normalisation, target: Normalisation | None = None) -> None:
        self.scale.mul_(normalisation.scale)
        for point_D in (self.b_dec, self.origin):
            mean_D = 0.0 if normalisation.mean_D is None else normalisation.mean_D.to(point_D.device)
            point_D.copy_(point_D.double() / normalisation.scale + mean_D)

    def fold_norms(self) -> None:
        """Rows have norm 1, whatever the scale."""
