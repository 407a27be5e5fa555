"""`progress.json` in the run folder: where training stands, for other processes (`saelight sweep status`)."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning as L

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import WriteProgressSettings
from saelight.callbacks.validations import in_training
from saelight.files import write_text

FILE = "progress.json"
_RECENT = 60.0
"""Seconds that the pace is taken from."""


class WriteProgress(WriteProgressSettings, SAECallback):
    """Keeps the run's step, speed and each SAE's last loss, L0, FVU and state on the disk, replaced whole.

    It also keeps the time: `seconds` of training over all of a run's lives, what was lost by a kill left out.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ended: dict[str, dict[str, Any]] = {}
        """State, reason, steps, tokens and seconds of the SAEs whose training has ended before the run's."""
        self._earlier = 0.0
        """Seconds of training in the run's lives before this one."""
        self._began: float | None = None
        self._wrote = 0.0
        self._pace: deque[tuple[float, int]] = deque()
        """Seconds and step of the records of the last minute: what came before the first one was start, and no pace."""
        self._saes: dict[str, dict[str, Any]] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._earlier + (0.0 if self._began is None else time.monotonic() - self._began)

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if trainer.ckpt_path is None:
            self._earlier = 0.0
            self.ended = {}
        self._saes = {name: dict(self.ended.get(name, {"state": "running", "reason": None})) for name in bank.names}

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        self._began = time.monotonic()
        self._pace.clear()
        self._write(trainer, bank)

    def on_record(self, trainer: L.Trainer, bank: L.LightningModule, values: dict[str, float]) -> None:
        assert isinstance(bank, SAEBank)
        for name, sae in self._saes.items():
            for metric in ("loss", "l0", "fvu"):
                if (value := values.get(f"{name}/train/{metric}")) is not None:
                    sae[metric] = value if math.isfinite(value) else None
        self._pace.append((self.seconds, trainer.global_step))
        while len(self._pace) > 2 and self._pace[1][0] < self.seconds - _RECENT:
            self._pace.popleft()
        if time.monotonic() - self._wrote > self.every:
            self._write(trainer, bank)

    @staticmethod
    def left(pace: Sequence[tuple[float, int]], steps: int) -> float | None:
        """Seconds that training of so many steps still takes, by (seconds, step) of some moments; None while there are
        fewer than two."""
        if len(pace) < 2 or pace[-1][1] == pace[0][1]:
            return None
        (since, first), (until, last) = pace[0], pace[-1]
        return (steps - last) * (until - since) / (last - first)

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        if not in_training(trainer):
            return
        for name, metrics in bank.last_metrics.items():
            self._saes[name]["val"] = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._write(trainer, bank)

    def on_quarantine(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        assert isinstance(bank, SAEBank)
        self._end(trainer, bank, name)

    def on_retire(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        assert isinstance(bank, SAEBank)
        self._end(trainer, bank, name)

    def _end(self, trainer: L.Trainer, bank: SAEBank, name: str) -> None:
        outcome = bank.outcome(name)
        assert outcome is not None
        self.ended[name] = outcome._asdict() | {
            "steps": trainer.global_step,
            "tokens": bank.tokens_seen,
            "seconds": self.seconds,
        }
        self._saes[name] |= self.ended[name]
        if name in bank.last_metrics:
            self._saes[name]["val"] = {k: v if math.isfinite(v) else None for k, v in bank.last_metrics[name].items()}
        self._write(trainer, bank)

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        self._write(trainer, bank)
        self._earlier, self._began = self.seconds, None

    def close(self, trainer: L.Trainer, bank: SAEBank, rows: list[dict[str, Any]]) -> None:
        """Say how each SAE ended, once its results are written."""
        for row in rows:
            self._saes[row["name"]] |= {"state": row["state"], "reason": row["reason"]}
        self._write(trainer, bank)

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        self._earlier, self._began = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier, self.ended = state_dict["seconds"], state_dict["ended"]

    def _write(self, trainer: L.Trainer, bank: SAEBank) -> None:
        folder = getattr(trainer, "folder", None)
        if folder is None or not trainer.is_global_zero or undeclared(trainer).fast_dev_run:
            return
        self._wrote = time.monotonic()
        content = {
            "pid": os.getpid(),
            "written": time.time(),
            "device": str(bank.device),
            "step": trainer.global_step,
            "steps": bank.horizon.steps,
            "tokens": bank.tokens_seen,
            "seconds": self.seconds,
            "eta": self.left(self._pace, bank.horizon.steps),
            "saes": self._saes,
        }
        write_text(folder / FILE, json.dumps(content), durable=False)
