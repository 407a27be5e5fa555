"""What the references share: encoder input, reconstruction error, prefixes, AuxK, and how gradients are taken.

Everything is slow on purpose: float64, einsum, loops over rows. `w` holds the weights by the names of the SAE's
parameters. `held` holds the same weights once more, as a stop-gradient sees them: sg[expression of w] is written as
that expression of `held`. Differences of the loss over `w` with `held` fixed are then exactly what the gradients must be.

B batch, D d_in, O d_out, F d_sae, K kept latents.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]


class Reference(NamedTuple):
    """A training loss of one batch and what it does to every parameter."""

    loss: Tensor
    gradients: Weights
    """by parameter; zeros where a parameter plays no part"""
    latents: Tensor
    """(B, F), as the training objective sees them"""


def leaves(w: Weights) -> Weights:
    return {name: weight.detach().double().requires_grad_() for name, weight in w.items()}


def frozen(w: Weights) -> Weights:
    return {name: weight.detach().double() for name, weight in w.items()}


def differentiate(loss: Tensor, w: Weights, latents: Tensor) -> Reference:
    found = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
    gradients = {name: torch.zeros_like(w[name]) if g is None else g for name, g in zip(w, found, strict=True)}
    return Reference(loss.detach(), gradients, latents.detach())


def centred(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    """The encoder's input. A transcoder (y given) has nothing to subtract: b_dec is of the other side."""
    return x - w["b_dec"] if y is None else x


def projections(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    """z (B, F)"""
    return torch.einsum("bd,df->bf", centred(x, y, w), w["W_enc"])


def added(x: Tensor, w: Weights) -> Tensor:
    """What the decoder adds to the latents' directions: its bias, and the skip connection where there is one."""
    bias_BO = w["b_dec"].expand(x.shape[0], -1)
    return bias_BO + torch.einsum("bd,do->bo", x, w["W_skip"]) if "W_skip" in w else bias_BO


def reconstruct(f: Tensor, x: Tensor, w: Weights) -> Tensor:
    return torch.einsum("bf,fo->bo", f, w["W_dec"]) + added(x, w)


def error(f: Tensor, x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    return (x if y is None else y) - reconstruct(f, x, w)


def per_token(x: Tensor, y: Tensor | None) -> tuple[int, int]:
    """B and the width that errors and penalties are divided by: the target's."""
    return x.shape[0], (x if y is None else y).shape[1]


def reconstruction_loss(f: Tensor, x: Tensor, y: Tensor | None, w: Weights, prefixes: list[int] | None = None) -> Tensor:
    """mean_B ‖e‖²/O; with prefixes, the mean of that over the reconstructions from the first m latents."""
    B, width = per_token(x, y)
    losses = []
    for m in prefixes or [f.shape[1]]:
        first = torch.cat([f[:, :m], torch.zeros_like(f[:, m:])], dim=1)
        losses.append((error(first, x, y, w) ** 2).sum() / (B * width))
    return sum(losses) / len(losses)


def norms(w: Weights) -> Tensor:
    """‖d_i‖ (F)"""
    return torch.stack([torch.sqrt((row * row).sum()) for row in w["W_dec"]])


def largest(values: list[float], k: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def keep(values: Tensor, chosen: list[tuple[int, int]]) -> Tensor:
    """values at the chosen (row, latent), 0 elsewhere."""
    mask = torch.zeros_like(values)
    for b, i in chosen:
        mask[b, i] = 1
    return values * mask


def aux_k(held_error: Tensor, pre: Tensor, w: Weights, dead: Tensor, k_aux: int, magnitudes: bool = False) -> Tensor:
    """‖sg[e] - ê‖² / ‖sg[e] - mean(sg[e])‖², ê from the k_aux largest pre-activations (magnitudes) of the dead.

    0 where no latent is dead, or where the ratio is not finite.
    """
    columns = dead.nonzero().flatten().tolist()
    if not columns:
        return torch.zeros((), dtype=pre.dtype)
    order = pre.detach().abs() if magnitudes else pre.detach()
    chosen = [(b, columns[j]) for b in range(len(pre)) for j in largest(order[b, columns].tolist(), k_aux)]
    e_hat = torch.einsum("bf,fo->bo", keep(pre, chosen), w["W_dec"])
    missed = ((held_error - e_hat) ** 2).sum()
    spread = ((held_error - held_error.mean(0)) ** 2).sum()
    ratio = missed / spread
    return ratio if ratio.isfinite() else torch.zeros((), dtype=pre.dtype)
