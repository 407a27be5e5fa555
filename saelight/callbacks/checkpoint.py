"""The run's checkpoint: every ten minutes, at the end, and when the run is told to stop."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from torch.distributed import ProcessGroup

from saelight.bank.ranks import greatest, host_group
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import SaveCheckpointSettings
from saelight.run import run_folder, slurm_job

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)


class SaveCheckpoint(SaveCheckpointSettings, SAECallback, Checkpoint):
    """Keeps `checkpoints/last.ckpt` in the run folder, replaced whole, so that a crash at any time leaves a good one.

    Ctrl-C, and the signals by which terminals, schedulers and people ask a process to end, only set a flag: the optimizer
    step ends, the checkpoint is written, then training stops, and resuming goes on exactly from there, with the validation
    that may be due first. A second Ctrl-C stops at once. A Slurm job goes back to the queue on SIGUSR1, and when it is
    preempted (`saelight/run/slurm_job.py`).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._saved_at = 0.0
        self._step = 0
        self._signal = 0
        """The signal that has come, or 0."""
        self._ranks: ProcessGroup | None = None
        """Of a run on several processes."""
        self._handlers: dict[int, Any] = {}
        self._blocked: set[int] = set()

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._signal = 0
        self._step = trainer.global_step
        self._ranks = host_group() if trainer.world_size > 1 else None
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup's
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
        stop, due = self._agreed(time.monotonic() - self._saved_at > 60 * self.minutes)
        if stop or due:
            self._save(trainer)
        self._stop(trainer, stop)

    def _agreed(self, due: bool) -> tuple[int, int]:
        """The signal to stop by, or 0, and whether to save: all ranks do it together, or none, and stop for one reason."""
        if self._ranks is None:
            return self._signal, due
        # After every step, so not by way of a device, which would have to end its work first.
        stop, any_due = greatest([self._signal, due], self._ranks)
        return stop, any_due

    def _stop(self, trainer: L.Trainer, stop: int) -> None:
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
        # One that came too late to stop anything is no less a wish to stop.
        self._stop(trainer, self._agreed(False)[0])
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
        trainer.save_checkpoint(run_folder.checkpoint(run_folder.of(trainer)))
        self._saved_at = time.monotonic()
