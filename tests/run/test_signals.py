"""Signals that ask a process to end: it saves, and says by its exit code what it was."""

import os
import signal

import lightning as L
import pytest
import torch

import saelight
from saelight.run import run_folder
from tests.support.commands import saelight_
from tests.support.runs import data, trainer

SAES = {"topk": saelight.TopK(d_sae=32, k=4, lr=1e-3)}


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """What a shell starts in the background ignores Ctrl-C, and so may the tests' own process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Send(L.Callback):
    """A signal to this very process, from one of the trainer's hooks."""

    def __init__(self, number=signal.SIGINT, hook="on_train_batch_start"):
        self.number, self.sent = number, False
        setattr(self, hook, self.send)

    def send(self, trainer, *args, **kwargs):
        if not self.sent and not trainer.sanity_checking:
            self.sent = True
            os.kill(os.getpid(), self.number)


def fit(tmp_path, *callbacks):
    t, d = trainer(tmp_path, callbacks=list(callbacks), val_check_interval=0.5), data()
    t.fit(saelight.SAEBank(dict(SAES), d_in=d.d_in), d)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"])
def test_what_asks_to_end_saves_first(name, tmp_path):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, Send(number))
    assert stopped.value.code == 128 + number
    assert torch.load(run_folder.checkpoint(tmp_path / "runs" / "run"), weights_only=True)["global_step"] == 1
    assert signal.getsignal(number) == before


HOOKS = ["on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end", "on_train_end"]


@pytest.mark.parametrize("hook", HOOKS)
def test_one_ctrl_c_anywhere_in_training_stops_it_after_saving(hook, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Send(hook=hook))
    assert run_folder.checkpoint(tmp_path / "runs" / "run").is_file()


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_fit_end", "teardown"])
def test_one_ctrl_c_around_training_stops_at_once(hook, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Send(hook=hook))
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_nohup_stays(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fit(tmp_path, Send(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "runs" / "run" / "results.jsonl").is_file()


class InterruptItself(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_the_command_says_130(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["--trainer.callbacks+=tests.run.test_signals.InterruptItself", "--trainer.accelerator=cpu"]
    config = ["--model.saes", '{"a": {"class_path": "TopK", "init_args": {"k": 2}}}', "--trainer.max_epochs=1"]
    rows = ["--data=SyntheticDataModule", "--data.d_in=8", "--data.n_features=16", "--data.rows=2000", "--data.val_rows=100"]
    assert saelight_("fit", *config, *rows, "--data.batch_size=100", *overrides) == 130
    assert run_folder.checkpoint(tmp_path / "runs" / "run").is_file()
