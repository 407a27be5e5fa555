"""Metrics of the dictionary itself, against known directions.

Shapes: D d_in, F d_sae, G ground-truth features.
"""

import torch
from torch import Tensor

from saelight.metrics.base import Sums
from saelight.metrics.functional import mmcs


class MMCS(Sums):
    """Mean max cosine similarity of known directions with the decoder's rows, averaged over the updates.

    It depends on the weights alone, so one update per validation says all; keep it out of collections that are updated
    per batch, or call `functional.mmcs`.

    Args:
        truth: the known directions (G, D), of any length.
    """

    higher_is_better = True
    similarity: Tensor
    dictionaries: Tensor

    def __init__(self, truth: Tensor) -> None:
        super().__init__()
        self.register_buffer("truth_GD", truth, persistent=False)
        self.add_sum("similarity")
        self.add_sum("dictionaries", dtype=torch.int64)

    def update(self, W_dec: Tensor) -> None:
        """Add one dictionary, `W_dec` (F, D)."""
        self.add(similarity=mmcs(self.truth_GD, W_dec), dictionaries=torch.tensor(1))

    def compute(self) -> Tensor:
        return self.similarity / self.dictionaries
