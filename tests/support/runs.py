"""Saelight's own trainer and synthetic data, small."""

from pathlib import Path
from typing import Any

import lightning as L

import saelight


def data(**kwargs: Any) -> saelight.SyntheticDataModule:
    settings = {"d_in": 16, "n_features": 32, "mean_l0": 3, "rows": 2000, "val_rows": 300, "batch_size": 100}
    return saelight.SyntheticDataModule(**settings | kwargs)


def trainer(tmp_path: Path, **kwargs: Any) -> saelight.Trainer:
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1}
    settings["root"] = str(tmp_path / "runs")
    return saelight.Trainer(**settings | kwargs)


class StopAt(L.Callback):
    """Writes a checkpoint after a step and pulls the plug."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise ConnectionAbortedError
