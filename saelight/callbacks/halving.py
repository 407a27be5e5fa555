"""Successive halving inside a bank: at a few moments the worst SAEs end, so that the better ones get the time."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import HalvingSettings
from saelight.callbacks.validations import expect_validations, in_training
from saelight.errors import UserError, did_you_mean
from saelight.schedules import in_steps


class Halving(HalvingSettings, SAECallback):
    """Ends the worst SAEs at each of some rungs, by the first validation at or after it, so that a share `keep` of those
    still in training goes on (Jamieson & Talwalkar, arXiv 1502.07943, algorithm "successive halving").

    A metric that is not finite ranks last, and equals rank by name. What was ended before, by quarantine or `StopEarly`,
    is not ranked. Several rungs before one validation are applied in turn, by that validation's numbers. The end of
    training ends nobody early: a rung that meets no validation before it is left out, with a warning.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.saved = 0.0
        """The share of the bank's training that was saved, SAEs weighted by their parameters; known when training ends."""
        self._decided = -1
        """The step of the last validation: rungs up to it are decided."""
        self._retired: dict[str, int] = {}
        """By SAE ended here: its steps of training."""

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        expect_validations(trainer, "Halving")
        known = bank.metric_keys(trainer, getattr(undeclared(trainer).datamodule, "features", None))
        if self.metric not in known:
            suggestion = did_you_mean(self.metric, known)
            raise UserError(f"Halving: no metric {self.metric!r}{suggestion}; a validation has {', '.join(known)}")
        if trainer.ckpt_path is None:
            self._decided, self._retired, self.saved = -1, {}, 0.0
        late = [step for step in self._open(bank) if step >= trainer.estimated_stepping_batches]
        if late and not undeclared(trainer).fast_dev_run:
            raise UserError(
                f"Halving: a rung at step {late[0]} is not before the end of training, at step "
                f"{trainer.estimated_stepping_batches}: move it forward or drop it"
            )

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if not in_training(trainer) or trainer.global_step >= trainer.estimated_stepping_batches:
            return
        bank.read_quarantine()
        for step in self._open(bank):
            if step <= trainer.global_step:
                self._halve(trainer, bank)
        self._decided = trainer.global_step

    def _open(self, bank: SAEBank) -> list[int]:
        """The steps of the rungs that are not decided yet."""
        return [step for rung in self.rungs if (step := in_steps(rung, bank.horizon)) > self._decided]

    def _halve(self, trainer: L.Trainer, bank: SAEBank) -> None:
        training = [name for i, name in enumerate(bank.names) if i not in bank.inactive]
        values = {name: bank.last_metrics[name][self.metric] for name in training}
        sign = 1 if self.goal == "minimize" else -1
        best_first = sorted(
            training, key=lambda name: (sign * values[name] if math.isfinite(values[name]) else math.inf, name)
        )
        # 0.07 of 100 are 7, which 0.07 * 100 exceeds by rounding.
        step, going_on = trainer.global_step, max(1, math.ceil(round(self.keep * len(training), 9)))
        for rank, name in enumerate(best_first[going_on:], going_on + 1):
            self._retired[name] = step
            what = f"{self.metric} {values[name]:.4g} ranked {rank} of {len(training)} at step {step}"
            rank_zero_info(f"SAE {name!r} is ended by halving: {what}")
            bank.retire(name, f"halving: {what}")

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        sizes = {name: sum(p.numel() for p in sae.parameters()) for name, sae in zip(bank.names, bank.saes, strict=True)}
        steps = trainer.global_step
        unspent = {name: steps - step for name, step in self._retired.items()}
        self.saved = sum(sizes[name] * left for name, left in unspent.items()) / (sum(sizes.values()) * max(1, steps))
        rank_zero_info(
            f"Halving saved {self.saved:.0%} of the training of {len(sizes)} SAEs: {sum(unspent.values()):,} of "
            f"{len(sizes) * steps:,} SAE-steps, weighted by parameters"
        )
        missed = [step for step in self._open(bank) if step <= steps]
        if missed and not undeclared(trainer).fast_dev_run:
            rank_zero_warn(
                f"Halving: {len(missed)} of {len(self.rungs)} rungs met no validation before training ended: validate more "
                "often (trainer.val_check_interval), or move them forward"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"decided": self._decided, "retired": self._retired}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._decided, self._retired = state_dict["decided"], state_dict["retired"]
