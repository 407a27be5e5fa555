"""Trainings in which one SAE learns, another stands still, and validations are many."""

from pathlib import Path
from typing import Any

import lightning as L

import saelight
from saelight.saes import SAEConfig
from saelight.schedules import Schedule
from tests.support.runs import data, trainer

STEADY = Schedule(kind="constant", warmup=0)
STILL = saelight.TopK(d_sae=20, k=4, lr=1e-12, schedule=STEADY)
LEARNING = saelight.ReLU(d_sae=20, sparsity=0.1, lr=1e-2, schedule=STEADY)
VALIDATIONS = {"max_epochs": 3, "val_check_interval": 0.25}  # 8 batches an epoch: one every second step
DATA = {"rows": 830, "val_rows": 100}


def fit(
    tmp_path: Path, saes: dict[str, SAEConfig], callbacks: list[L.Callback] | tuple = (), **kwargs: Any
) -> tuple[saelight.SAEBank, saelight.Trainer]:
    t = trainer(tmp_path, callbacks=list(callbacks), **VALIDATIONS | kwargs)
    bank = saelight.SAEBank(dict(saes), d_in=16)
    t.fit(bank, data(**DATA))
    return bank, t
