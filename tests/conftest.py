"""What every test is given: an empty folder, a quiet Lightning, and no way out."""

import logging
import os
from pathlib import Path

import pytest
import torch

from tests.support.activations import sparse_activations

pytest_plugins = ["tests.support.chromium"]

# Nothing here may reach out, and nothing should ask for the user's account.
os.environ.setdefault("WANDB_MODE", "offline")
# CUDA's kernels run here too, interpreted.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Processes that the tests start import what is tested, and the tests' own classes.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def quiet_lightning():
    """Lightning's notes about devices and tips are no part of what the tests look at."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def activations() -> torch.Tensor:
    return sparse_activations(2048)
