"""Metrics of the weights: each depends on them alone, so one update per validation says all. Keep them out of collections
that are updated per batch, or call the functions of `directions`.

Several updates are averaged. Shapes: D d_in, F d_sae, G ground-truth features.
"""

import torch
from torch import Tensor

from saelight.metrics.directions import coherence, mcc, mmcs, weight_correlation
from saelight.metrics.sums import Sums


class OfWeights(Sums):
    """A number per dictionary, averaged over those it was shown."""

    def __init__(self) -> None:
        super().__init__()
        # Named after the class: metrics of different kinds must not be taken for one family.
        self.total, self.count = f"{type(self).__name__}_total", f"{type(self).__name__}_dictionaries"
        self.add_sum(self.total)
        self.add_sum(self.count, dtype=torch.int64)

    def add_value(self, value: Tensor) -> None:
        """Add one dictionary's number."""
        self.add(**{self.total: value, self.count: torch.tensor(1)})

    def compute(self) -> Tensor:
        return getattr(self, self.total) / getattr(self, self.count)


class MMCS(OfWeights):
    """Mean max cosine similarity of known directions with the decoder's rows.

    Args:
        truth: the known directions (G, D), of any length.
        signed: for latents that may be negative: max |cos|.
    """

    higher_is_better = True
    truth_GD: Tensor

    def __init__(self, truth: Tensor, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.register_buffer("truth_GD", truth, persistent=False)

    def update(self, W_dec: Tensor) -> None:
        """Add one dictionary, `W_dec` (F, D)."""
        self.add_value(mmcs(self.truth_GD, W_dec, self.signed))


class MCC(OfWeights):
    """Mean |cos| over the best one-to-one matching of known directions and the decoder's rows.

    Args:
        truth: the known directions (G, D), of any length.
    """

    higher_is_better = True
    truth_GD: Tensor

    def __init__(self, truth: Tensor) -> None:
        super().__init__()
        self.register_buffer("truth_GD", truth, persistent=False)

    def update(self, W_dec: Tensor) -> None:
        """Add one dictionary, `W_dec` (F, D)."""
        self.add_value(mcc(self.truth_GD, W_dec))


class WeightCorrelation(OfWeights):
    """Mean over alive latents of the cosine of encoder column and decoder row."""

    def update(self, W_enc: Tensor, W_dec: Tensor, alive: Tensor | None = None) -> None:
        """Add one SAE: `W_enc` (D, F), `W_dec` (F, D), and which latents are `alive`, bool (F,) (default: all)."""
        self.add_value(weight_correlation(W_enc, W_dec, alive))


class Coherence(OfWeights):
    """Largest |cos| between two of the decoder's rows."""

    higher_is_better = False

    def update(self, W_dec: Tensor) -> None:
        """Add one dictionary, `W_dec` (F, D)."""
        self.add_value(coherence(W_dec))
