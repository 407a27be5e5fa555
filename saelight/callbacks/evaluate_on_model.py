"""What the language model loses with each SAE in it, while the SAEs train."""

from typing import Any

import lightning as L
import torch

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import EvaluateOnModelSettings
from saelight.callbacks.validations import in_training
from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError
from saelight.lm.causal_model import PROBED, CausalModel, batches, load_causal, window_settings, windows_of
from saelight.lm.judging import Candidate, Judge
from saelight.lm.places import find
from saelight.lm.row_rule import RowRule
from saelight.lm.substitution import Substitution
from saelight.run.metric_names import ON_MODEL
from saelight.schedules import in_steps


class EvaluateOnModel(EvaluateOnModelSettings, SAECallback):
    """Measures loss recovered, cross entropies and KL (docs/evaluate.md) on a few windows of text, for every SAE: at each
    validation, or every so many steps; then validations report what was measured last, and the end of training measures
    once more.

    They are metrics of validations like any other: logged as `val/loss_recovered`, and what `Halving`, searches and sweeps
    can judge by. The model stays in the device's memory while training lasts.
    """

    measures = ON_MODEL

    def __post_init__(self) -> None:
        super().__post_init__()
        self._causal: CausalModel | None = None
        self._substitution: Substitution | None = None
        self._windows: list[list[int]] = []
        self._measured: dict[str, dict[str, float]] = {}
        """By SAE: what was measured last."""
        self._measured_at = -1
        """The step of the last measurement."""

    def setup(self, trainer: L.Trainer, bank: L.LightningModule, stage: str) -> None:
        """Load the model and the text, and see that they fit the bank. Raises `UserError` where they do not."""
        assert isinstance(bank, SAEBank)
        if stage == "predict" or self._substitution is not None:
            return
        data = undeclared(trainer).datamodule
        source, target = (getattr(data, name, None) or {} for name in ("source", "target_source"))
        model, hook = _known("model", self.model, source.get("model")), _known("hook", self.hook, source.get("hook"))
        written = hook if bank.d_out is None else _known("target_hook", self.target_hook, target.get("hook"))
        device = str(trainer.strategy.root_device)
        corpus = Corpus(TextSettings(list(self.text), exclude=list(self.exclude) or None, seed=self.seed))
        self._causal = load_causal(
            ModelSettings(model, tokenizer=self.tokenizer, model_dtype=self.model_dtype, device=device)
        )
        cut = window_settings(source, self.context)
        self._windows = windows_of(corpus, self._causal, cut, self.windows * cut.context)[: self.windows]
        network = self._causal.network
        substitution = Substitution(network, find(network, [hook]), find(network, [written]))
        seen = substitution.check(torch.tensor([max(self._windows, key=len)[:PROBED]], device=self._causal.device))
        substitution.check_widths(seen, bank.d_in, bank.d_out or bank.d_in, "EvaluateOnModel: the bank")
        self._substitution = substitution

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if trainer.ckpt_path is None:
            self._measured, self._measured_at = {}, -1
        bank.measured = self._measured

    def on_train_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, *given: Any) -> None:
        assert isinstance(bank, SAEBank)
        step = trainer.global_step
        if self.every is None or step == self._measured_at or step % max(1, in_steps(self.every, bank.horizon)):
            return
        self._measure(trainer, bank)
        scalars = {f"{name}/val/{key}": value for name, values in self._measured.items() for key, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=step)

    def on_validation_epoch_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if trainer.sanity_checking or (self._measured and trainer.global_step == self._measured_at):
            return
        at_the_end = not in_training(trainer) or trainer.global_step >= bank.horizon.steps
        if self.every is None or not self._measured or at_the_end:
            self._measure(trainer, bank)

    def on_test_epoch_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self.on_validation_epoch_end(trainer, bank)

    def _measure(self, trainer: L.Trainer, bank: SAEBank) -> None:
        assert self._causal is not None
        assert self._substitution is not None
        source = getattr(undeclared(trainer).datamodule, "source", None) or {}
        named = zip(bank.names, bank.saes, strict=True)
        candidates = [
            Candidate(name, sae, RowRule.of(source), bank.normalisation, bank.target_normalisation)
            for i, (name, sae) in enumerate(named)
            # What does not train any more has not changed.
            if i not in bank.inactive or name not in self._measured
        ]
        special = [] if self.splice_special else self._causal.special
        judge = Judge(self._substitution, candidates, special, max(map(len, self._windows)))
        for ids_BT, real_BT in batches(self._windows, self.batch_size, self._causal.device):
            judge.add(ids_BT, real_BT)
        for judgement in judge.finish():
            self._measured[judgement.name] = {key: judgement.metrics[key] for key in self.measures}
        self._measured_at, bank.measured = trainer.global_step, self._measured

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured, "measured_at": self._measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured, self._measured_at = state_dict["measured"], state_dict["measured_at"]


def _known(name: str, given: str | None, own: Any) -> str:
    """A setting as it is given, or as the data have it. Raises `UserError` where neither says."""
    if (value := given or own) and value != "synthetic":
        return str(value)
    raise UserError(f"EvaluateOnModel: the data do not say their {name}: set {name}")
