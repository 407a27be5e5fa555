"""Pruning by Optuna, one SAE at a time: a trial that looks poor beside the others ends, and its siblings train on."""

import math
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.callbacks.declarations import PruneTrialsSettings
from saelight.callbacks.validations import expect_validations, in_training
from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.callbacks.optuna_study import Trials


class PruneTrials(PruneTrialsSettings, SAECallback):
    """Reports every SAE's validation metric to its Optuna trial and retires those that the study's pruner gives up.

    A validation is a step of the pruner's. All SAEs report before the first is judged, so that none is judged by fewer.
    `saelight sweep run` adds this callback to the groups of a search (docs/sweeps.md).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._validations = 0
        self._study: Trials | None = None

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        expect_validations(trainer, "PruneTrials")
        if trainer.ckpt_path is None:
            self._validations = 0
        if missing := set(bank.names) - self.trials.keys():
            raise UserError(f"PruneTrials: no trial for {', '.join(sorted(missing))}")
        if trainer.is_global_zero:
            from saelight.callbacks.optuna_study import Trials

            self._study = Trials(self.journal, self.study, self.pruner)

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if not in_training(trainer):
            return
        bank.read_quarantine()
        self._validations += 1
        running = [name for i, name in enumerate(bank.names) if i not in bank.inactive]
        poor = self._judge(running, bank.last_metrics) if trainer.is_global_zero else []
        if trainer.global_step >= trainer.estimated_stepping_batches:
            return  # there is nothing left to save
        for name in trainer.strategy.broadcast(poor):
            rank_zero_info(f"SAE {name!r} (trial {self.trials[name]}) is pruned at validation {self._validations}")
            bank.retire(name, f"at validation {self._validations}, step {trainer.global_step}", state="pruned")

    def _judge(self, names: list[str], evaluation: dict[str, dict[str, float]]) -> list[str]:
        assert self._study is not None  # opened on this rank when training began
        trials = {name: self._study[self.trials[name]] for name in names}
        for name, trial in trials.items():
            value = evaluation[name][self.metric]
            if math.isfinite(value):
                trial.report(value, self._validations)
        return [name for name, trial in trials.items() if trial.should_prune()]

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]
