"""Activations and runs shared by the tests."""

import logging
import os

import pytest
import torch

# Nothing here may reach out, and nothing should ask for the user's account.
os.environ.setdefault("WANDB_MODE", "offline")
# CUDA's kernels run here too, interpreted.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def quiet_lightning():
    """Lightning's notes about devices and tips are no part of what the tests look at."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def sparse_activations(rows: int, d_in: int = 16, n_features: int = 48, seed: int = 0) -> torch.Tensor:
    """Sparse combinations of known directions (rows, d_in), scaled to E‖x‖² = d_in."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=g), dim=1)
    magnitudes = torch.rand(rows, n_features, generator=g) * (torch.rand(rows, n_features, generator=g) < 0.06)
    x = magnitudes @ directions + 0.01 * torch.randn(rows, d_in, generator=g)
    return x * (d_in / x.square().sum(1).mean()).sqrt()


@pytest.fixture(scope="session")
def activations() -> torch.Tensor:
    return sparse_activations(2048)
