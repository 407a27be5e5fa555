"""The definitions in plain numpy float64, whole arrays at once: slow and obvious. And a batch to try them on."""

import numpy as np
import torch

from saelight.metrics import token_metrics

D, F = 12, 40
COUNTED = ("l0", "dead", "dense")


def batch(tokens=300, seed=0, d_in=D, d_sae=F, signed=False):
    """Activations off the origin, a fair reconstruction, and latents of which some are dead and some dense."""
    gen = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(tokens, d_in, generator=gen)
    x_hat = x + 0.3 * torch.randn(tokens, d_in, generator=gen) + 0.1
    keep = torch.rand(tokens, d_sae, generator=gen) < torch.linspace(0, 0.5, d_sae).square()
    f = torch.randn(tokens, d_sae, generator=gen) * keep
    return {"x": x, "x_hat": x_hat, "f": f if signed else f.abs()}


def values(data, splits=(), **kwargs):
    metrics = token_metrics(data["x"].shape[1], data["f"].shape[1], **kwargs)
    for part in zip(*(t.tensor_split(sorted(splits)) for t in data.values()), strict=True):
        metrics.update(**dict(zip(data, part, strict=True)))
    return {name: value.item() for name, value in metrics.compute().items()}


def metrics(x, x_hat, f, mean=0.0):
    x, x_hat, f = (np.asarray(a, dtype=np.float64) for a in (x, x_hat, f))
    e = x - x_hat
    frequency = (f != 0).mean(0)
    fvu = (e**2).sum() / ((x - x.mean(0)) ** 2).sum()
    ratio = (e**2).sum(1) / ((x - mean) ** 2).sum(1)
    return {
        "l0": (f != 0).sum(1).mean(),
        "l1": abs(f).sum(1).mean(),
        "dead": (frequency == 0).mean(),
        "dense": (frequency > 0.1).mean(),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "explained_variance_centered": 1 - e.var(0).sum() / x.var(0).sum(),
        "explained_variance_per_token": (1 - ratio).mean(),
        "fvu_median": np.quantile(ratio, 0.5, method="inverted_cdf"),
        "cosine": ((x * x_hat).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(x_hat, axis=1)).mean(),
        "l2_ratio": (np.linalg.norm(x_hat, axis=1) / np.linalg.norm(x, axis=1)).mean(),
        "reconstruction_bias": (x_hat**2).sum() / (x * x_hat).sum(),
    }


def cosines(a, b):
    a, b = (np.asarray(rows, dtype=np.float64) for rows in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def mmcs(truth, decoder):
    return cosines(truth, decoder).max(1).mean()
