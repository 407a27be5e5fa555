"""The run's checkpoint: every ten minutes, at the end, and when the run is told to stop."""

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import SaveCheckpointSettings
from saelight.files import replacing
from saelight.run import run_folder, slurm_job

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class SaveCheckpoint(SaveCheckpointSettings, SAECallback, Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run folder, replaced whole, so that a crash at any time leaves a good one.

    Ctrl-C, SIGTERM and SIGUSR1 only set a flag: the batch ends, with the validation that may follow it, the checkpoint is
    written, then training stops, and resuming goes on exactly from there. A second Ctrl-C stops at once. A Slurm job goes
    back to the queue on SIGUSR1, and when it is preempted (`saelight/run/slurm_job.py`).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._saved_at = 0.0
        self._step = 0
        self._waits: int | None = None
        """The signal to stop by, or 0, after the checkpoint that waits for a validation to end; None while none waits."""
        self._signal = 0
        """The signal that has come, or 0."""
        self._handlers: dict[int, Any] = {}
        self._blocked: set[int] = set()

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._signal, self._waits = 0, None
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._handlers[number] = signal.signal(number, self._note)
            # A sweep's job begins with it blocked: one that came before there was anything to save comes now.
            self._blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        # The first one counts: Slurm sends SIGTERM some time after SIGUSR1, and again when patience ends.
        self._signal = self._signal or number

    def on_train_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            # Between the batches of one accumulated step, gradients are underway that no checkpoint holds.
            return
        self._step = trainer.global_step
        stop, due = self._signal, time.monotonic() - self._saved_at > 60 * self.minutes
        if trainer.world_size > 1:
            # All ranks save together, or none, and stop for one reason.
            flags = torch.tensor([stop, due], device=trainer.strategy.root_device)
            stop, due = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        if not (stop or due):
            return
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        validates = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
        # A run resumed from here would leave out the validation that is about to begin, and what is decided by it. A
        # checkpoint that waited in vain (there was nothing to validate on) waits no more.
        if validates and self._waits is None:
            self._waits = stop
        else:
            self._save_and(trainer, stop)

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        if self._waits is not None:
            self._save_and(trainer, self._waits)

    def _save_and(self, trainer: L.Trainer, stop: int) -> None:
        self._waits = None
        self._save(trainer)
        if stop:
            L.pytorch.utilities.rank_zero_info(f"Stopped after step {trainer.global_step}; --ckpt_path last continues.")
            if stop == signal.SIGINT:
                raise KeyboardInterrupt
            if trainer.is_global_zero and slurm_job.requeue(stop):
                # The loggers are yet to be closed: what Slurm now sends is noted still.
                self._handlers.pop(signal.SIGTERM, None)
            # Lightning kills the first process when another one has ended.
            trainer.strategy.barrier()
            raise SystemExit(128 + stop)

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._save(trainer)
        self._restore_handlers()

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._handlers:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        self._handlers.clear()

    def _save(self, trainer: L.Trainer) -> None:
        if undeclared(trainer).fast_dev_run:
            return
        path = run_folder.checkpoint(run_folder.of(trainer))
        # Every rank takes part; the first one writes.
        with replacing(path) if trainer.is_global_zero else contextlib.nullcontext(path) as partial:
            trainer.save_checkpoint(partial)
        self._saved_at = time.monotonic()
