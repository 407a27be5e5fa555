"""BatchTopK SAE: k latents per token on average, shared out over the batch (arXiv 2412.06410).

    training:   f = ReLU(z + b_enc) where f ‖d‖ is among the k·B largest of the batch, the rest 0,   z = (x - b_dec) @ W_enc
    inference:  f = ReLU(z + b_enc) where f ‖d‖ exceeds θ, the rest 0

θ is a running mean of the smallest kept positive f ‖d‖ of each step: θ ← β_t θ + (1 - β_t) · min,
β_t = min(0.97, (t + 1)/(t + 10)): a longer memory (the paper's code has 0.999) lags behind weights that still move.
Under DDP each rank selects in its own batch, and the smallest values are averaged.
The rest is TopK's. Shapes: B batch, F d_sae.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelight.ops.dispatch import kernels_for, trains_sparsely
from saelight.ops.entries import AllEntries, KeptEntries
from saelight.ops.normalisation import Normalisation
from saelight.ops.placed import largest_of_all
from saelight.ops.select import above, largest_of_batch, largest_of_chunk
from saelight.saes.losses import Entries, Losses, Moment
from saelight.saes.topk import TopK, TopKSAE

_MARGIN = 0.8
_MEMORY = 0.97


@dataclass(kw_only=True)
class BatchTopK(TopK):
    """k latents per token on average: tokens that need more get more. A threshold takes over at inference."""


class BatchTopKSAE(TopKSAE, config=BatchTopK):
    training_state = (*TopKSAE.training_state, "threshold_updates")

    threshold: Tensor
    threshold_updates: Tensor

    def __init__(self, config: BatchTopK, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__(config, d_in, seed, d_out)
        self.register_buffer("threshold", torch.tensor(0.0))
        self.register_buffer("threshold_updates", torch.tensor(0))

    def encode(self, x: Tensor) -> Tensor:
        pre = torch.relu(self.pre_activations(x, self.b_enc))
        return torch.where(self.rank(pre) > self.threshold, pre, 0.0)

    @torch.no_grad()
    def fold(self, normalisation: Normalisation, target: Normalisation | None = None) -> None:
        super().fold(normalisation, target)
        if not self.unit_decoder:
            # It is compared with f‖d‖, which has the target's units.
            self.threshold.div_((normalisation if target is None else target).scale)

    def stretch_latents(self, by_F: Tensor) -> None:
        super().stretch_latents(by_F)
        if self.unit_decoder:
            # It is compared with f; rows of one norm have latents of one stretch.
            self.threshold.mul_(by_F.mean())

    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        k = self.k_at(moment)
        if self.is_sparse(k, x_BD):
            pre_E, entries = self._largest_positive(x_BD, k * len(x_BD))
            f = torch.relu(pre_E)
            values = f.detach() if (norms_F := self.norms) is None else f.detach() * entries.at(norms_F)
        elif not trains_sparsely(x_BD):
            pre_E, entries = self.placed_pre_activations(largest_of_all(k * len(x_BD)), x_BD)
            f, values = torch.relu(pre_E), entries.seen_E
        else:
            pre_BF = torch.relu(self.pre_activations(x_BD, self.b_enc))
            values, indices = self.rank(pre_BF.detach()).flatten().topk(k * len(x_BD), sorted=False)
            kept = pre_BF.flatten().gather(0, indices)
            f, entries = torch.zeros_like(pre_BF).flatten().scatter(0, indices, kept).view_as(pre_BF), AllEntries()
        losses = self.objective(f, entries, x_BD, y_BD, moment)
        # Infinite where no latent is positive, which `absorb` skips.
        positive = values.masked_fill(values <= 0, torch.inf)
        smallest = positive.min().to(self.threshold.dtype) if len(positive) else torch.full_like(self.threshold, torch.inf)
        return losses._replace(measured=smallest[None])

    def _largest_positive(self, x_BD: Tensor, n: int) -> tuple[Tensor, Entries]:
        """The n largest pre-activations of the batch, as far as they are positive."""
        if kernels_for(x_BD) is not None:
            # Always n of them, some perhaps not positive: a device need not tell how many there are.
            return self.kept_pre_activations(
                largest_of_chunk(n),
                x_BD,
                self.b_enc,
                sparsely=True,
                trim=lambda by_E, _: largest_of_batch(by_E, n),
                weights_F=self.norms,
            )
        # The running threshold tells about where they begin. A batch whose own lies lower is scanned again, from 0.
        for bound in (_MARGIN * self.threshold, torch.zeros_like(self.threshold)):
            candidates = 0

            def trim(by_E: Tensor, entries: KeptEntries) -> Tensor | None:
                nonlocal candidates
                candidates = len(by_E)
                return largest_of_batch(by_E, n)

            pre_E, entries = self.kept_pre_activations(
                above(bound), x_BD, self.b_enc, sparsely=True, trim=trim, weights_F=self.norms
            )
            if candidates >= n:
                break
        return pre_E, entries

    @torch.no_grad()
    def absorb(self, measured: Tensor, moment: Moment) -> None:
        smallest, t = measured[0], self.threshold_updates
        keep = ((t + 1) / (t + 10)).clamp(max=_MEMORY)
        seen = smallest < torch.inf
        moved = keep * self.threshold + (1 - keep) * smallest
        torch.where(seen, moved, self.threshold, out=self.threshold)
        self.threshold_updates.add_(seen)
