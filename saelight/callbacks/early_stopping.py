"""Early stopping, one SAE at a time: what has stopped getting better ends, and the others go on."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from saelight.bank.optimizer import learning_rates
from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.callbacks.declarations import StopEarlySettings
from saelight.callbacks.validations import expect_validations, in_training
from saelight.schedules import in_steps


class StopEarly(StopEarlySettings, SAECallback):
    """Ends the training of each SAE that makes no progress for `patience` validations in a row.

    Progress is a validation that no earlier one matches in all `metrics` at once: with the default, an SAE that explains
    more or one that has become sparser. FVU alone would end every SAE whose L0 is still on its way down, as it is while λ
    warms up or moves towards `target_l0`: there FVU rises as it should. A learning rate that rises, in warm-up or at a warm
    restart, starts the comparison afresh.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._best: dict[str, list[list[float]]] = {}
        """By SAE: the metrics of the validations that no other one matches."""
        self._waited: dict[str, int] = {}
        """By SAE: validations since the last progress."""
        self._rates: dict[str, float] = {}
        """By SAE: the learning rate at the last validation."""

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        expect_validations(trainer, "StopEarly")
        if trainer.ckpt_path is None:
            self._best, self._waited, self._rates = {}, {}, {}

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if not in_training(trainer) or trainer.global_step < in_steps(self.after, bank.horizon):
            return
        bank.read_quarantine()
        rates = learning_rates(trainer.optimizers[0])
        for i, name in enumerate(bank.names):
            if i in bank.inactive:
                continue
            if rates[name] > self._rates.get(name, math.inf):
                self._best[name] = []
            now = [bank.last_metrics[name][metric] for metric in self.metrics]
            self._waited[name] = 0 if self._progress(name, now) else self._waited.get(name, 0) + 1
            if self._waited[name] >= self.patience:
                rank_zero_info(f"SAE {name!r} made no progress in {self.patience} validations: its training ends here")
                bank.retire(name, f"no progress in {self.patience} validations, at step {trainer.global_step}")
        self._rates = rates

    def _progress(self, name: str, now: list[float]) -> bool:
        """Whether no earlier validation matches this one in all metrics; if so it is kept."""
        best = self._best.setdefault(name, [])
        if not all(map(math.isfinite, now)):
            return False
        if any(all(value >= old * (1 - self.min_delta) for value, old in zip(now, kept, strict=True)) for kept in best):
            return False
        # What this one matches in turn decides nothing any more.
        best[:] = [kept for kept in best if not all(value <= old for value, old in zip(now, kept, strict=True))]
        best.append(now)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited, "rates": self._rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._waited, self._rates = (state_dict[key] for key in ("best", "waited", "rates"))
