"""Callbacks that harm one SAE, or stop a run."""

import signal
from typing import Any

import lightning as L
import torch

from saelight.bank import SAEBank
from saelight.callbacks import SAECallback
from tests.support.banks import weights


class Poison(SAECallback):
    """Writes NaN into one SAE's weights after some steps."""

    def __init__(self, name: str, after: int) -> None:
        self.name, self.after = name, after
        self.reasons: list[tuple[str, str]] = []

    def on_train_batch_start(self, trainer: L.Trainer, bank: SAEBank, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.after:
            with torch.no_grad():
                bank[self.name].W_dec[0, 0] = torch.nan

    def on_quarantine(self, trainer: L.Trainer, bank: SAEBank, name: str, reason: str) -> None:
        self.reasons.append((name, reason))


class Explode(L.Callback):
    """Makes one SAE's next gradient infinite, its weights left alone."""

    def __init__(self, name: str, after: int) -> None:
        self.name, self.after = name, after
        self.before: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, bank: SAEBank, optimizer: torch.optim.Optimizer) -> None:
        if trainer.global_step == self.after:
            bank[self.name].b_enc.grad[0] = torch.inf
            self.before = weights(bank, self.name)


class Terminate(L.Callback):
    """SIGTERM during a step; the run's own checkpoint follows."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            signal.raise_signal(signal.SIGTERM)
