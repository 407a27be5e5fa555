"""Progress bars in tokens: rate and time left for the whole of training, not for an epoch."""

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.callbacks.declarations import NoSettings
from saelight.data.pairs import as_pair


class TokenProgress(NoSettings, SAECallback, ProgressBar):
    """One bar for training, one for each validation, test or prediction that takes more than two seconds."""

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
        # A log file gets a line now and then, a terminal or a notebook a moving bar.
        interval = 0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 10.0
        return tqdm(
            unit="tok",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=interval,
            disable=not self._enabled,
            file=sys.stderr,
            **kwargs,
        )

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        self._training = self._bar(desc="train", total=bank.horizon.tokens, initial=bank.tokens_seen)

    def on_train_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, *_: Any) -> None:
        assert isinstance(bank, SAEBank)
        assert self._training is not None
        self._training.update(bank.tokens_seen - self._training.n)

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for bar in (self._evaluation, self._training):
            if bar is not None:
                bar.close()
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
