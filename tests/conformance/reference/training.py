"""What happens beside the gradient: BatchTopK's threshold, p-annealing, the law of random prefixes, resampling.

B batch, D d_in, O d_out, F d_sae.
"""

import torch
from torch import Tensor

from tests.conformance.reference.common import Weights, centred, error, norms
from tests.conformance.reference.penalised import relu_latents


def threshold_average(steps: list[list[Tensor]]) -> tuple[float, int]:
    """BatchTopK's threshold and its number of updates, each step given by the kept latents times row norms
    (B, F) of its parts (ranks).

    A part in which nothing fired has no smallest positive value and takes no part; a step of such parts is no update.
    """
    threshold, t = 0.0, 0
    for parts in steps:
        smallest = [min(f[f > 0].tolist()) for f in parts if (f > 0).any()]
        if smallest:
            beta = min(0.97, (t + 1) / (t + 10))
            threshold = beta * threshold + (1 - beta) * sum(smallest) / len(smallest)
            t += 1
    return threshold, t


def annealed_p(p_end: float, updates: int) -> list[float]:
    """p before the first update and after each."""
    return [1 + (p_end - 1) * j / updates for j in range(updates + 1)]


def annealed_coefficient(coefficient: float, batches: list[Tensor], w: Weights, p_old: float, p_new: float) -> float:
    """λ after p changes: the penalty over the last batches' latents (B, F) stays what it was."""

    def penalty(p: float) -> float:
        return sum(float(((f * norms(w))[f > 0] ** p).sum() / f.shape[0]) for f in batches) / len(batches)

    return coefficient * penalty(p_old) / penalty(p_new)


def prefix_law(d_sae: int) -> Tensor:
    """P(length m) for m = 1 … F - 1 of one random prefix: P(length ≤ m) ∝ m^0.5, the authors' Pareto(0.5)."""
    at_most = torch.tensor([m**0.5 for m in range(d_sae)], dtype=torch.float64)
    return (at_most[1:] - at_most[:-1]) / at_most[-1]


def resampling_law(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    """The probability of each input to be drawn (B): ∝ the square of its error."""
    loss_B = (error(relu_latents(x, y, w), x, y, w) ** 2).sum(1)
    return loss_B**2 / (loss_B**2).sum()


def resample(x: Tensor, y: Tensor | None, w: Weights, dead: Tensor, rows: list[int]) -> Weights:
    """The weights after the dead latents, in order, took over the given rows of x (a transcoder's decoder: of y)."""
    new = {name: weight.clone() for name, weight in w.items()}
    alive = (~dead).nonzero().flatten().tolist()
    length = 0.2 * sum(float(w["W_enc"][:, i].norm()) for i in alive) / len(alive)
    inputs_BD = centred(x, y, w)
    outputs_BO = (x if y is None else y) - w["b_dec"]
    if "W_skip" in w:
        outputs_BO = outputs_BO - x @ w["W_skip"]
    for i, row in zip(dead.nonzero().flatten().tolist(), rows, strict=True):
        new["W_dec"][i] = outputs_BO[row] / outputs_BO[row].norm()
        new["W_enc"][:, i] = length * inputs_BD[row] / inputs_BD[row].norm()
        new["b_enc"][i] = 0
    return new
