"""Changes of units that leave an SAE what it is: to raw activations, and to decoder rows of norm 1.

Shapes: D d_in (d_out where it concerns the target), F d_sae.

With x̃ = s (x - μ) an autoencoder's (x̃ - b_dec) @ W_enc is (x - μ - b_dec/s) @ sW_enc. A transcoder subtracts no b_dec: what
μ adds to its pre-activations, and to its skip path, goes into the biases.
"""

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation

_ROUNDING = 1e-6  # of a row's norm in float32


class Foldable(nn.Module):
    """The part of an SAE that knows what units do to its weights. Every method keeps x̂ (or ŷ)."""

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    W_skip: nn.Parameter | None
    b_dec: nn.Parameter
    is_transcoder: bool

    @torch.no_grad()
    def fold(self, normalisation: Normalisation, target: Normalisation | None = None) -> None:
        """Make this SAE, trained on normalised activations (and targets), one that takes x and gives x̂ (or ŷ) in their own
        units; latents stay the same.

        Args:
            normalisation: What x was trained in.
            target: What a transcoder's y was trained in. Default: the same.

        Raises:
            UserError: A transcoder without a bias cannot take in a mean.
        """
        target = normalisation if target is None else target
        s, t = normalisation.scale, target.scale
        # float64: a mean may be many times as large as what varies.
        b_dec_D = self.b_dec.double() / t
        if target.mean_D is not None:
            b_dec_D += target.mean_D.to(b_dec_D)
        if self.is_transcoder and normalisation.mean_D is not None:
            mean_D = normalisation.mean_D.to(b_dec_D)
            self.add_to_z(-s * (mean_D @ self.W_enc.double()))
            if self.W_skip is not None:
                b_dec_D -= s / t * (mean_D @ self.W_skip.double())
        self.b_dec.copy_(b_dec_D)
        self.W_enc.mul_(s)
        self.W_dec.div_(t)
        if self.W_skip is not None:
            self.W_skip.mul_(s / t)

    def fold_for_use(self, normalisation: Normalisation, target: Normalisation | None = None) -> None:
        """`fold`, and whatever else only training needs: what a published SAE is loaded as."""
        self.fold(normalisation, target)

    def add_to_z(self, by_F: Tensor) -> None:
        """Add (F,) float64 to z, for every token: to each bias that z meets."""
        if (b_enc := getattr(self, "b_enc", None)) is None:
            raise UserError(
                f"{type(self).__name__} has no bias that takes in a mean: train on data.normalise rms, or give it `add_to_z`"
            )
        b_enc.add_(by_F)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Bring decoder rows to norm 1 and their norms into the latents: f_i ← f_i ‖d_i‖. What was brought there before
        keeps every bit.

        Raises:
            UserError: for a variant whose latents cannot be stretched.
        """
        norms_F = self.W_dec.norm(dim=1).clamp_min(1e-12)
        norms_F[(norms_F - 1).abs() < _ROUNDING] = 1
        self.stretch_latents(norms_F)
        self.W_dec.div_(norms_F[:, None])

    def stretch_latents(self, by_F: Tensor) -> None:
        """Multiply each latent by a positive number of its own (F,), the decoder left alone."""
        self.W_enc.mul_(by_F)
        if (b_enc := getattr(self, "b_enc", None)) is not None:
            b_enc.mul_(by_F)
