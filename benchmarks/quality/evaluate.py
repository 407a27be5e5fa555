"""One evaluator for every library: the model's own rows in, latents and the model's own rows out, sums in float64.

Shapes: B batch, D d_in, F d_sae.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.peers.learning import Inference
from benchmarks.quality.runs import Measured


@torch.no_grad()
def evaluate(sae: Inference, batches: Iterable[Tensor], measured_rows: int) -> tuple[Measured, float]:
    """FVU and L0 over the first rows, and the share of latents that fired on no row at all.

    FVU is Σ‖x − x̂‖² over Σ‖x − x̄‖², x̄ the mean of the same rows.
    """
    rows, nonzero, error, square = 0, 0, 0.0, 0.0
    sum_D, fired_F = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    for x_BD in batches:
        f_BF = sae.encode(x_BD)
        active_BF = f_BF != 0
        fired_F = fired_F | active_BF.any(0)
        if (left := measured_rows - rows) > 0:
            x_BD, f_BF, active_BF = x_BD[:left], f_BF[:left], active_BF[:left]
            error += (x_BD - sae.decode(f_BF)).double().square().sum().item()
            square += x_BD.double().square().sum().item()
            sum_D = sum_D + x_BD.double().sum(0)
            nonzero += int(active_BF.sum())
            rows += len(x_BD)
    variance = square - sum_D.square().sum().item() / rows
    return Measured(error / variance, nonzero / rows), 1 - fired_F.double().mean().item()
