"""TopK (Gao et al. arXiv 2406.04093), AbsTopK (arXiv 2510.00404) and BatchTopK (arXiv 2412.06410), with AuxK. What counts in
the selection is a latent times the norm of its decoder row, which is 1 in the papers.

B batch, F d_sae, K kept latents.
"""

import torch
from torch import Tensor

from tests.conformance.reference.common import (
    Reference,
    Weights,
    aux_k,
    differentiate,
    error,
    frozen,
    keep,
    largest,
    leaves,
    projections,
    reconstruction_loss,
)


def per_row(order: Tensor, k: int) -> list[tuple[int, int]]:
    return [(b, i) for b, row in enumerate(order.detach()) for i in largest(row.tolist(), k)]


def top_latents(pre: Tensor, k: int, norms: Tensor) -> Tensor:
    f = torch.clamp(pre, min=0)
    return keep(f, per_row(f * norms, k))


def abs_top_latents(pre: Tensor, k: int, norms: Tensor) -> Tensor:
    return keep(pre, per_row(pre.abs() * norms, k))


def batch_top_latents(pre: Tensor, k: int, norms: Tensor) -> Tensor:
    f = torch.clamp(pre, min=0)
    B, F = f.shape
    return keep(f, [divmod(j, F) for j in largest((f * norms).detach().flatten().tolist(), k * B)])


SELECTIONS = {"topk": top_latents, "abs_topk": abs_top_latents, "batch_topk": batch_top_latents}


def selected(name: str):
    """The objective with one of the three selections: they differ in nothing else, but for AbsTopK's magnitudes in AuxK."""

    def objective(
        x: Tensor,
        y: Tensor | None,
        w: Weights,
        *,
        k: int,
        k_aux: int,
        dead: Tensor,
        aux_coefficient: float = 1 / 32,
        prefixes: list[int] | None = None,
        held: Weights | None = None,
    ) -> Reference:
        held, w = frozen(held or w), leaves(w)
        pre = projections(x, y, w) + w["b_enc"]
        norms = held["W_dec"].norm(dim=1)
        f = SELECTIONS[name](pre, k, norms)
        held_f = SELECTIONS[name](projections(x, y, held) + held["b_enc"], k, norms)
        aux = aux_k(error(held_f, x, y, held), pre, w, dead, k_aux, magnitudes=name == "abs_topk")
        return differentiate(reconstruction_loss(f, x, y, w, prefixes) + aux_coefficient * aux, w, f)

    return objective


topk, abs_topk, batch_topk = selected("topk"), selected("abs_topk"), selected("batch_topk")
