"""Metrics of the reconstruction. FVU and the two explained variances derived from it share one set of sums.

Shapes: B batch (tokens), D d_in.
"""

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.metrics import functional as fn
from saelight.metrics.base import Sums


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


class ExplainedVariancePerToken(Sums):
    """Mean over tokens of 1 - ‖e‖² / ‖x - mean‖².

    A mean of ratios can be exact under any batching only if the point it is centred on is known beforehand.

    Args:
        mean: that point, (D,), or None for the origin.
    """

    higher_is_better = True
    explained: Tensor
    explained_tokens: Tensor

    def __init__(self, mean: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(1) if mean is None else mean, persistent=False)
        self.add_sum("explained")
        self.add_sum("explained_tokens", dtype=torch.int64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add one batch: activations `x` (B, D) and reconstructions `x_hat` (B, D)."""
        if self.mean_D.shape not in ((1,), x.shape[1:]):
            raise UserError(f"mean is {tuple(self.mean_D.shape)} and x {tuple(x.shape)}: give the mean of these tokens")
        explained = fn.explained_per_token_sum(x, x_hat, self.mean_D)
        self.add(explained=explained, explained_tokens=torch.tensor(len(x)))

    def compute(self) -> Tensor:
        return self.explained / self.explained_tokens


class Cosine(Sums):
    """Mean over tokens of cos(x, x̂)."""

    higher_is_better = True
    cosines: Tensor
    cosine_tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("cosines")
        self.add_sum("cosine_tokens", dtype=torch.int64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add one batch: activations `x` (B, D) and reconstructions `x_hat` (B, D)."""
        self.add(cosines=fn.cosine_sum(x, x_hat), cosine_tokens=torch.tensor(len(x)))

    def compute(self) -> Tensor:
        return self.cosines / self.cosine_tokens
