"""Activations that sparse autoencoders can explain."""

import torch


def sparse_activations(rows: int, d_in: int = 16, n_features: int = 48, seed: int = 0) -> torch.Tensor:
    """Sparse combinations of known directions (rows, d_in), scaled to E‖x‖² = d_in."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=g), dim=1)
    magnitudes = torch.rand(rows, n_features, generator=g) * (torch.rand(rows, n_features, generator=g) < 0.06)
    x = magnitudes @ directions + 0.01 * torch.randn(rows, d_in, generator=g)
    return x * (d_in / x.square().sum(1).mean()).sqrt()
