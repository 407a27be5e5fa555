"""Small banks and the plainest trainer that can train them."""

from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from saelight.bank import SAEBank
from saelight.saes import SAEConfig
from tests.support.variants import VARIANTS

D_IN = 16


def bank(saes: dict[str, SAEConfig] | None = None, **kwargs: Any) -> SAEBank:
    return SAEBank(saes or dict(VARIANTS), d_in=D_IN, **kwargs)


def fit(bank: SAEBank, activations: torch.Tensor, batch_size: int = 64, callbacks=(), **kwargs: Any) -> L.Trainer:
    """Train on fixed batches with Lightning's own Trainer, nothing written."""
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(callbacks=list(callbacks), **settings | kwargs)
    trainer.fit(bank, DataLoader(activations, batch_size=batch_size))
    return trainer


def weights(bank: SAEBank, name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in bank[name].state_dict().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Bitwise equality."""
    assert a.keys() == b.keys()
    assert not [key for key in a if a[key].numpy().tobytes() != b[key].numpy().tobytes()]
