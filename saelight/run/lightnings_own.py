"""Lightning's own arguments: their ranges, and what it says of them, and later of a run, in one line."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from saelight.bank import SAEBank
from saelight.errors import UserError, did_you_mean
from saelight.ranges import LONGEST, Range, checked

_LONGEST_LINE = 400
_PARSERS = ("lightning.", "jsonargparse.", "yaml.")


@dataclass(frozen=True, kw_only=True, repr=False)
class Batches(Range):
    """A number of batches, or the share of an epoch's."""

    zero: bool = True

    def _holds(self, value: Any) -> bool:
        return (value > 0 or (self.zero and value == 0)) and (isinstance(value, int) or value <= 1) and value <= LONGEST

    def _words(self, value: Any) -> str:
        return repr(self)

    def __repr__(self) -> str:
        zero = "0 or more" if self.zero else "not 0"
        return f"a number of batches (an int) or a share of them (a float up to 1.0), {zero}"


_UNITS = {"days", "hours", "minutes", "seconds", "weeks", "milliseconds", "microseconds"}
_COUNT = Annotated[int | None, Range(least=0, most=LONGEST)]
_LIMIT = Annotated[int | float | None, Batches()]
RANGES: dict[str, Any] = {
    "num_nodes": Annotated[int, Range(least=1, most=100_000)],
    "max_epochs": Annotated[int | None, Range(least=-1, most=LONGEST)],
    "min_epochs": _COUNT,
    "max_steps": Annotated[int, Range(least=-1, most=LONGEST)],
    "min_steps": _COUNT,
    "limit_train_batches": Annotated[int | float | None, Batches(zero=False)],
    "limit_val_batches": _LIMIT,
    "limit_test_batches": _LIMIT,
    "limit_predict_batches": _LIMIT,
    "overfit_batches": _LIMIT,
    "check_val_every_n_epoch": Annotated[int | None, Range(least=1, most=LONGEST)],
    "num_sanity_val_steps": Annotated[int | None, Range(least=-1, most=LONGEST)],
    "log_every_n_steps": _COUNT,
    "accumulate_grad_batches": Annotated[int, Range(least=1, most=LONGEST)],
    "reload_dataloaders_every_n_epochs": _COUNT,
    "fast_dev_run": Annotated[bool | int, Range(least=0, most=LONGEST)],
}
"""Of the arguments that are numbers, beside `val_check_interval` and `devices`, which may be others things too."""


def check(given: Mapping[str, Any]) -> None:
    """Raise `UserError` for an argument out of its range, and for those that mean nothing here."""
    for name, value in given.items():
        if name in RANGES and not (name == "fast_dev_run" and isinstance(value, bool)):
            checked(f"trainer.{name}", value, RANGES[name])
    interval, devices = given.get("val_check_interval"), given.get("devices")
    if isinstance(interval, int | float):
        Batches(zero=False).check("trainer.val_check_interval", interval)
    if isinstance(devices, int):
        Range(least=-1, most=1024).check("trainer.devices", devices)
    _check_time(given.get("max_time"))
    if given.get("default_root_dir") is not None:
        raise UserError("trainer.default_root_dir would hold nothing: run folders lie in trainer.root; set that")
    if given.get("barebones"):
        raise UserError("trainer.barebones turns off what a run is for (logs, checkpoints, results): drop it")
    for callback in _listed(given.get("callbacks")):
        if isinstance(callback, ModelCheckpoint) and callback.save_last:
            raise UserError("ModelCheckpoint: the run keeps its own checkpoints/last.ckpt; drop save_last")
        if isinstance(callback, LearningRateMonitor) and given.get("logger") is False:
            raise UserError("LearningRateMonitor has nothing to log to: drop it, or trainer.logger false")


def _check_time(limit: Any) -> None:
    """Raise `UserError` for a `max_time` in which nothing is trained; of another form, Lightning will speak."""
    if isinstance(limit, Mapping) and limit.keys() <= _UNITS and all(isinstance(n, int | float) for n in limit.values()):
        limit = timedelta(**limit)
    nothing = limit <= timedelta(0) if isinstance(limit, timedelta) else isinstance(limit, str) and not limit.strip("0:")
    if nothing:
        raise UserError(f"trainer.max_time {limit} leaves no time to train: drop it, or write DD:HH:MM:SS")


def check_processes(trainer: L.Trainer) -> None:
    """Raise `UserError` where several processes were started and each would train alone, all the same."""
    for variable, starter in (("WORLD_SIZE", "torchrun"), ("SLURM_STEP_NUM_TASKS", "srun")):
        started = os.environ.get(variable, "")
        if trainer.world_size == 1 and started.isdecimal() and int(started) > 1:
            raise UserError(
                f"{starter} started {started} processes ({variable}), and each would train all on its own: set "
                f"trainer.strategy ddp (and devices, num_nodes), or start one without {starter}"
            )


def check_monitors(trainer: L.Trainer, bank: SAEBank, features: Any) -> None:
    """Raise `UserError` for a callback of Lightning's that waits for a metric which nothing logs."""
    callbacks = _listed(getattr(trainer, "callbacks", None))
    if any(type(callback).__module__.split(".")[0] not in ("saelight", "lightning") for callback in callbacks):
        return  # one of the user's own may log it
    known = [f"{name}/val/{key}" for name in bank.names for key in bank.metric_keys(trainer, features)]
    for callback in callbacks:
        waits = isinstance(callback, ModelCheckpoint) or (isinstance(callback, EarlyStopping) and callback.strict)
        monitor = getattr(callback, "monitor", None) if waits else None
        if monitor is not None and monitor not in (*known, "epoch", "step"):
            raise UserError(
                f"{type(callback).__name__}: no metric {monitor!r}{did_you_mean(str(monitor), known)}; a bank logs "
                f"<sae>/val/<metric>, as {known[0]}"
            )


@contextlib.contextmanager
def building() -> Iterator[None]:
    """What Lightning's constructor raises, as `UserError`s."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Its own classes and those of torch, import errors too: whatever it is, it is about the arguments.
        raise UserError(f"trainer: {_line(error)}") from error


@contextlib.contextmanager
def instantiating() -> Iterator[None]:
    """What Lightning's callbacks and loggers, or the parser, object to when a config's classes are made."""
    try:
        yield
    except Exception as error:
        chain = list(_chain(error))
        first = next((one for one in chain if isinstance(one, MisconfigurationException)), chain[-1])
        known = isinstance(first, MisconfigurationException) or _raised_in(first).startswith(_PARSERS)
        if any(isinstance(one, UserError) for one in chain) or not known:
            raise
        raise UserError(_line(first)) from error


@contextlib.contextmanager
def running() -> Iterator[None]:
    """What Lightning's own code objects to while it runs, as `UserError`s; what it merely calls raises as ever. Ctrl-C is
    the `KeyboardInterrupt` that Lightning ends the whole process for, and the next one is heard too."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except UserError:
        raise
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, MisconfigurationException) or _raised_in(error).startswith("lightning."):
            raise UserError(_line(error)) from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_in(error: BaseException) -> str:
    """The module whose code raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__", ""))


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"


def _listed(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, list | tuple) else [] if callbacks is None else [callbacks]
