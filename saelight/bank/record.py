"""What one logged training step of a bank reports: a small tensor on the device, read once.

N SAEs, M metrics, B batch, D d_out.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from saelight.saes import SAE, Losses

METRICS = ("loss", "reconstruction", "penalty", "sparsity", "aux", "l0", "fvu", "dead", "grad_norm")


class StepRecord:
    """The metrics of one step of every SAE, gathered without waiting for the device."""

    def __init__(self, names: list[str], y_BD: Tensor, learning_rates: dict[str, float]) -> None:
        self.names, self.learning_rates = names, learning_rates
        self.batch = len(y_BD)
        self.variance = (y_BD - y_BD.mean(0)).square().mean()
        # NaN: nothing to report, as of a variant without a penalty or of a quarantined SAE.
        self.values_NM = torch.full((len(names), len(METRICS)), torch.nan, device=y_BD.device)

    def add_losses(self, i: int, sae: SAE, losses: Losses) -> None:
        """What SAE `i`'s forward pass gave."""
        l0, fvu = losses.counts_F.sum() / self.batch, losses.reconstruction / self.variance
        columns = [
            losses.total,
            losses.reconstruction,
            losses.penalty,
            losses.sparsity,
            losses.aux,
            l0,
            fvu,
            sae.dead().float().mean(),
        ]
        for j, value in enumerate(columns):
            if value is not None:
                self.values_NM[i, j] = value.detach() if isinstance(value, Tensor) else value

    def add_norm(self, i: int, norm: Tensor) -> None:
        """The norm of SAE `i`'s gradient before clipping."""
        self.values_NM[i, -1] = norm

    def read(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The values by `<sae>/train/<metric>`, after `reduce` has averaged them over ranks."""
        rows = reduce(self.values_NM).tolist()
        return {f"{name}/train/lr": rate for name, rate in self.learning_rates.items()} | {
            f"{name}/train/{metric}": value
            for name, row in zip(self.names, rows, strict=True)
            for metric, value in zip(METRICS, row, strict=True)
            if value == value
        }
