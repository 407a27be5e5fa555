"""Progress in tokens: rate and time left for all of training, not for an epoch, and how the best and the worst SAE fare."""

import math
import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.bars import bar
from saelight.callbacks.declarations import NoSettings
from saelight.data.pairs import as_pair


class TokenProgress(NoSettings, SAECallback, ProgressBar):
    """A line that says what is trained where, a bar for training, and one for each validation, test or prediction that takes
    more than two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._training: tqdm | None = None
        self._evaluation: tqdm | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        if self._enabled:
            tqdm.write(sep.join(map(str, args)), file=sys.stderr)

    def _bar(self, **kwargs: Any) -> tqdm:
        return bar(unit="tok", disable=not self._enabled, **kwargs)

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if trainer.is_global_zero:
            self.print(_what(trainer, bank))
        self._training = self._bar(desc="train", total=bank.horizon.tokens, initial=bank.tokens_seen)

    def on_record(self, trainer: L.Trainer, bank: L.LightningModule, values: dict[str, float]) -> None:
        assert isinstance(bank, SAEBank)
        fvu = {name: value for name in bank.names if math.isfinite(value := values.get(f"{name}/train/fvu", math.nan))}
        if self._training is not None and fvu:
            best, worst = min(fvu, key=fvu.__getitem__), max(fvu, key=fvu.__getitem__)
            chosen = {"best": best, "worst": worst} if best != worst else {"": best}
            self._training.set_postfix_str(" · ".join(_how(*pair, values) for pair in chosen.items()), refresh=False)

    def on_train_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, *_: Any) -> None:
        assert isinstance(bank, SAEBank)
        assert self._training is not None
        self._training.update(bank.tokens_seen - self._training.n)

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for one in (self._evaluation, self._training):
            if one is not None:
                one.close()
        self._training = self._evaluation = None

    def _start_evaluation(self, name: str, loader: Any) -> None:
        rows = getattr(loader, "n_rows", None)
        self._evaluation = self._bar(desc=name, total=rows, delay=2, leave=False, position=1 if self._training else 0)

    def on_validation_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._start_evaluation("validate", trainer.val_dataloaders)

    def on_test_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._start_evaluation("test", trainer.test_dataloaders)

    def on_predict_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._start_evaluation("predict", trainer.predict_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._evaluation is not None
        self._evaluation.update(len(as_pair(batch).x_BD) * trainer.world_size)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._evaluation is not None
        self._evaluation.close()
        self._evaluation = None

    on_test_end = on_predict_end = on_validation_end


def _what(trainer: L.Trainer, bank: SAEBank) -> str:
    """`9 SAEs, 64 → 256, on cpu, in runs/quickstart`."""
    widths = [sae.d_sae for sae in bank.saes]
    spread = f"{min(widths):,}" if min(widths) == max(widths) else f"{min(widths):,} to {max(widths):,}"
    devices = f"{trainer.world_size} × {bank.device.type}" if trainer.world_size > 1 else str(bank.device)
    folder = getattr(trainer, "folder", None)
    parts = [f"{len(widths)} SAE{'s' * (len(widths) > 1)}", f"{bank.saes[0].d_in:,} → {spread}", f"on {devices}"]
    parts += [f"in {folder}"] if folder else []
    parts += [f"from step {trainer.global_step:,} on"] if trainer.global_step else []
    return ", ".join(parts)


def _how(which: str, name: str, values: dict[str, float]) -> str:
    """`best topk-8: FVU 0.050, L0 8.0, loss 3.1`."""
    kinds = {"fvu": "FVU {:.3f}", "l0": "L0 {:.1f}", "loss": "loss {:.3g}"}
    said = [text.format(value) for key, text in kinds.items() if (value := values.get(f"{name}/train/{key}")) is not None]
    return f"{which} {name}: {', '.join(said)}".strip()
