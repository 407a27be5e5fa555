"""Each variant's objective in float64, written from docs/training.md and the papers, with no line of the library's.

B batch, D d_in, F d_sae.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def relu(x: Tensor, w: Weights, coefficient: float, **_) -> Tensor:
    B, D = x.shape
    f = torch.clamp(torch.einsum("bd,df->bf", x - w["b_dec"], w["W_enc"]) + w["b_enc"], min=0)
    x_hat = torch.einsum("bf,fd->bd", f, w["W_dec"]) + w["b_dec"]
    norms = torch.stack([torch.sqrt((row * row).sum()) for row in w["W_dec"]])
    return ((x - x_hat) ** 2).sum() / (B * D) + coefficient / D**0.5 * (f * norms).sum() / B


def gated(x: Tensor, w: Weights, coefficient: float, **_) -> Tensor:
    B, D = x.shape
    z = torch.einsum("bd,df->bf", x - w["b_dec"], w["W_enc"])
    gate, magnitude = z + w["b_gate"], torch.exp(w["r_mag"]) * z + w["b_mag"]
    f = torch.where(gate > 0, torch.clamp(magnitude, min=0), 0.0)
    x_hat = torch.einsum("bf,fd->bd", f, w["W_dec"]) + w["b_dec"]
    open_gate = torch.clamp(gate, min=0)
    from_gate = torch.einsum("bf,fd->bd", open_gate, w["W_dec"].detach()) + w["b_dec"].detach()
    return (((x - x_hat) ** 2).sum() + ((x - from_gate) ** 2).sum()) / (B * D) + coefficient / D**0.5 * open_gate.sum() / B


def topk(x: Tensor, w: Weights, k: int, k_aux: int, dead: Tensor, **_) -> Tensor:
    B, D = x.shape
    pre = torch.einsum("bd,df->bf", x - w["b_dec"], w["W_enc"]) + w["b_enc"]
    f = torch.zeros_like(pre)
    for b in range(B):
        for i in sorted(range(len(pre[b])), key=lambda i: -float(pre.detach()[b, i]))[:k]:
            f[b, i] = torch.clamp(pre[b, i], min=0)
    e = x - (torch.einsum("bf,fd->bd", f, w["W_dec"]) + w["b_dec"])
    loss = (e**2).sum() / (B * D)
    if dead.any():
        target = e.detach()
        kept = torch.zeros_like(pre)
        for b in range(B):
            for i in sorted(dead.nonzero().flatten().tolist(), key=lambda i: -float(pre.detach()[b, i]))[:k_aux]:
                kept[b, i] = pre[b, i]
        e_hat = torch.einsum("bf,fd->bd", kept, w["W_dec"])
        loss = loss + ((target - e_hat) ** 2).sum() / ((target - target.mean(0)) ** 2).sum() / 32
    return loss


REFERENCES: dict[str, Callable[..., Tensor]] = {"relu": relu, "gated": gated, "topk": topk}
