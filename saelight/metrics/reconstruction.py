"""Metrics of the reconstruction x̂ of x: an autoencoder's input, a transcoder's target.

FVU and the two explained variances derived from it share one set of sums; what is made of each token's own FVU another;
cosine, L2 ratio and reconstruction bias a third. Shapes: B batch (tokens), D width of x.
"""

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.metrics import functional as fn
from saelight.metrics.sums import Sums


class Reconstruction(Sums):
    """The shared sums.

    Args:
        d_in: width of x, D.
    """

    x_D: Tensor
    x_square: Tensor
    e_D: Tensor
    e_square: Tensor
    moment_tokens: Tensor

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.d_in = d_in
        for name in ("x_D", "e_D"):
            self.add_sum(name, d_in)
        for name in ("x_square", "e_square"):
            self.add_sum(name)
        self.add_sum("moment_tokens", dtype=torch.int64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add one batch: activations `x` (B, D) and reconstructions `x_hat` (B, D)."""
        if x.shape[-1] != self.d_in:
            raise UserError(f"x has width {x.shape[-1]} and the metric {self.d_in}: build it with d_in={x.shape[-1]}")
        tokens, *terms = fn.moment_sums(x, x_hat)
        self.add(moment_tokens=tokens, **dict(zip(("x_D", "x_square", "e_D", "e_square"), terms, strict=True)))

    @property
    def sums(self) -> fn.Moments:
        """The states by name, for the functions."""
        return fn.Moments(self.moment_tokens, self.x_D, self.x_square, self.e_D, self.e_square)


class FVU(Reconstruction):
    """Fraction of variance unexplained, Σ‖e‖² / Σ‖x - x̄‖², x̄ the mean of all tokens seen."""

    higher_is_better = False

    def compute(self) -> Tensor:
        return fn.fvu(self.sums)


class ExplainedVariance(Reconstruction):
    """1 - FVU."""

    higher_is_better = True

    def compute(self) -> Tensor:
        return 1 - fn.fvu(self.sums)


class ExplainedVarianceCentered(Reconstruction):
    """1 - ΣVar(e) / ΣVar(x): blind to a constant error."""

    higher_is_better = True

    def compute(self) -> Tensor:
        return fn.explained_variance_centered(self.sums)


class PerToken(Sums):
    """What is known of each token's ‖e‖² / ‖x - mean‖²; tokens exactly at the mean, with nothing to explain, are left out.

    What is made of ratios can be exact under any batching only if the point it is centred on is known beforehand.

    Args:
        mean: that point, (D,), or None for the origin.
    """

    mean_D: Tensor
    per_token_tokens: Tensor
    per_token_shares: Tensor
    per_token_ratios_H: Tensor

    def __init__(self, mean: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(1) if mean is None else mean, persistent=False)
        self.add_sum("per_token_tokens", dtype=torch.int64)
        self.add_sum("per_token_shares")
        self.add_sum("per_token_ratios_H", fn.RATIO_BINS, dtype=torch.int64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add one batch: activations `x` (B, D) and reconstructions `x_hat` (B, D)."""
        if self.mean_D.shape not in ((1,), x.shape[1:]):
            raise UserError(f"mean is {tuple(self.mean_D.shape)} and x {tuple(x.shape)}: give the mean of these tokens")
        sums = fn.per_token_sums(x, x_hat, self.mean_D)
        self.add(**{f"per_token_{name}": term for name, term in sums._asdict().items()})

    @property
    def sums(self) -> fn.PerToken:
        """The states by name, for the functions."""
        return fn.PerToken(self.per_token_tokens, self.per_token_shares, self.per_token_ratios_H)


class ExplainedVariancePerToken(PerToken):
    """Mean of 1 - ‖e‖² / ‖x - mean‖² over tokens."""

    higher_is_better = True

    def compute(self) -> Tensor:
        return fn.explained_variance_per_token(self.sums)


class FVUMedian(PerToken):
    """Median of ‖e‖² / ‖x - mean‖² over tokens, within a factor 1.0023: what FVU is for the token in the middle, where a few
    tokens far from the mean decide FVU."""

    higher_is_better = False

    def compute(self) -> Tensor:
        return fn.fvu_median(self.sums)


class Aligned(Sums):
    """The sums that cosine, L2 ratio and reconstruction bias share."""

    def __init__(self) -> None:
        super().__init__()
        for name in fn.Alignment._fields:
            counts = name in ("tokens", "nonzero")
            self.add_sum(f"aligned_{name}", dtype=torch.int64 if counts else torch.float64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add one batch: activations `x` (B, D) and reconstructions `x_hat` (B, D)."""
        self.add(**{f"aligned_{name}": term for name, term in fn.alignment_sums(x, x_hat)._asdict().items()})

    @property
    def sums(self) -> fn.Alignment:
        """The states by name, for the functions."""
        return fn.Alignment(*(getattr(self, f"aligned_{name}") for name in fn.Alignment._fields))


class Cosine(Aligned):
    """Mean over tokens of cos(x, x̂)."""

    higher_is_better = True

    def compute(self) -> Tensor:
        return fn.cosine(self.sums)


class L2Ratio(Aligned):
    """Mean of ‖x̂‖ / ‖x‖ over the tokens with x ≠ 0."""

    def compute(self) -> Tensor:
        return fn.l2_ratio(self.sums)


class ReconstructionBias(Aligned):
    """γ = Σ‖x̂‖² / Σ⟨x, x̂⟩; below 1 the reconstructions are too short: shrinkage."""

    def compute(self) -> Tensor:
        return fn.reconstruction_bias(self.sums)
