"""Matching pursuit (Mallat & Zhang 1993; as an SAE: Costa et al. arXiv 2506.03093).

B batch, D d_in, F d_sae.
"""

import torch
from torch import Tensor

from tests.conformance.reference.common import Reference, Weights, differentiate, leaves


def pursue(x_D: Tensor, w: Weights, k: int) -> tuple[dict[int, Tensor], Tensor]:
    """One token's latents, by index, and its residual."""
    residual = x_D - w["b_dec"]
    latents: dict[int, Tensor] = {}
    for _ in range(k):
        if (residual**2).sum() < 0.01 * (x_D**2).sum():
            break
        products = torch.stack([(residual * row).sum() for row in w["W_dec"]])
        i = int(products.argmax())
        if products[i] <= 0 or i in latents:
            break
        latents[i] = products[i]
        residual = residual - products[i] * w["W_dec"][i]
    return latents, residual


def pursuit_latents(x: Tensor, w: Weights, k: int) -> Tensor:
    f = torch.zeros(x.shape[0], w["W_dec"].shape[0], dtype=x.dtype)
    for b, x_D in enumerate(x):
        for i, value in pursue(x_D, w, k)[0].items():
            f[b, i] = value.detach()
    return f


def matching_pursuit(x: Tensor, y: Tensor | None, w: Weights, *, k: int) -> Reference:
    assert y is None, "matching pursuit has no transcoder"
    w = leaves(w)
    B, D = x.shape
    loss = sum((pursue(x_D, w, k)[1] ** 2).sum() for x_D in x) / (B * D)
    return differentiate(loss, w, pursuit_latents(x, w, k))
