"""Lightning's own arguments and callbacks under saelight's Trainer: what is refused, in what words, and what works."""

import json
import signal

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

import saelight
from saelight.bank.evaluation import Evaluation
from saelight.saes import JumpReLU, ReLU, TopK
from tests.support.runs import data, trainer


def bank(**saes) -> saelight.SAEBank:
    return saelight.SAEBank(saes or {"topk": TopK(d_sae=32, k=4)}, d_in=16)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"accelerator": "tpu"}, "trainer: Requirement 'torch_xla"),
        ({"accelerator": "gpuu"}, "trainer: You selected an invalid accelerator name"),
        ({"devices": "x"}, "trainer: `devices` selected with `CPUAccelerator` should be an int > 0"),
        ({"devices": 0}, "trainer: `Trainer(devices=0)` value is not a valid input"),
        ({"devices": 10**6}, "trainer.devices must be at most 1024"),
        ({"num_nodes": 0}, "trainer.num_nodes must be at least 1, got 0"),
        ({"strategy": "x"}, "trainer: You selected an invalid strategy name"),
        ({"max_epochs": -2}, "trainer.max_epochs must be at least -1, got -2"),
        ({"max_epochs": 1.5}, "trainer.max_epochs must be a whole number or null, got 1.5"),
        ({"limit_train_batches": -1}, "trainer.limit_train_batches must be a number of batches (an int) or a share"),
        ({"limit_train_batches": 0}, "not 0, got 0"),
        ({"limit_val_batches": 2.5}, "trainer.limit_val_batches must be a number of batches"),
        ({"val_check_interval": 1e9}, "trainer.val_check_interval must be a number of batches"),
        ({"val_check_interval": "x"}, "trainer: Invalid time format for `val_check_interval`: 'x'"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be at least 1"),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be at least 1"),
        ({"reload_dataloaders_every_n_epochs": -1}, "trainer.reload_dataloaders_every_n_epochs must be at least 0"),
        ({"max_time": "1:2"}, "trainer: `Timer(duration='1:2')` is not a valid duration"),
        ({"max_time": "00:00:00:00"}, "trainer.max_time 00:00:00:00 leaves no time to train"),
        ({"max_time": {"days": -1}}, "leaves no time to train"),
        ({"profiler": "x"}, "trainer: When passing string value for the `profiler`"),
        ({"max_epoch": 1}, "trainer: "),
        ({"default_root_dir": "x"}, "trainer.default_root_dir would hold nothing: run folders lie in trainer.root"),
        ({"barebones": True}, "trainer.barebones turns off what a run is for"),
        ({"name": "../x"}, "trainer.name '../x' cannot be a folder's"),
        ({"callbacks": ModelCheckpoint(save_last=True)}, "ModelCheckpoint: the run keeps its own checkpoints/last.ckpt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_the_trainer_does_not_take(settings, line, tmp_path):
    with pytest.raises(saelight.UserError) as error:
        trainer(tmp_path, **settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["accelerator", "devices", "strategy", "num_nodes", "limit_val_batches", "precision"])
def test_none_is_the_default(name, tmp_path):
    with_none, without = trainer(tmp_path, **{name: None}), trainer(tmp_path)
    assert with_none.world_size == without.world_size == 1
    assert with_none.limit_val_batches == 1.0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"val_check_interval": 1000}, "`val_check_interval` \\(1000\\) must be less than or equal to the number"),
        ({"callbacks": EarlyStopping("x")}, "EarlyStopping: no metric 'x'; a bank logs <sae>/val/<metric>"),
        ({"callbacks": EarlyStopping("topk/val/fvuu")}, "did you mean 'topk/val/fvu'"),
        ({"callbacks": ModelCheckpoint(monitor="loss")}, "ModelCheckpoint: no metric 'loss'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_a_fit_does_not_take(settings, line, tmp_path):
    with pytest.raises(saelight.UserError, match=line):
        trainer(tmp_path, **settings).fit(bank(), data())
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_that_would_train_alone_are_refused(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "2")
    with pytest.raises(saelight.UserError, match=r"started 2 processes .*set trainer.strategy ddp"):
        trainer(tmp_path)


def test_lightnings_callbacks_write_into_the_run(tmp_path):
    callbacks = [LearningRateMonitor(), ModelCheckpoint(monitor="jump/val/fvu")]
    t = trainer(tmp_path, callbacks=callbacks)
    t.fit(bank(jump=JumpReLU(d_sae=32), decayed=ReLU(d_sae=32, weight_decay=0.01)), data())
    rates = callbacks[0].lrs
    assert len(rates) == len(t.optimizers[0].param_groups) > 4
    assert all(rates.values())
    assert {path.name for path in (t.folder / "checkpoints").iterdir()} == {"last.ckpt", "epoch=0-step=20.ckpt"}
    assert callbacks[1].best_model_path.startswith(str(t.folder))


def test_another_fit_trains_anew(tmp_path):
    t, d = trainer(tmp_path, max_epochs=None), data()
    for n, (folder, tokens) in enumerate([("run", 500), ("run-2", 500), ("run-3", 700)]):
        module = saelight.SAEBank({"topk": TopK(d_sae=32, k=4)}, d_in=16, max_tokens=tokens)
        before = module["topk"].W_enc.detach().clone()
        t.fit(module, d)
        assert (t.folder.name, t.global_step, module.tokens_seen) == (folder, tokens // 100, tokens), n
        assert not before.equal(module["topk"].W_enc)
        assert (t.folder / "saes" / "topk" / "config.json").is_file()
    rows = [json.loads((tmp_path / "runs" / run / "results.jsonl").read_text()) for run in ("run", "run-2")]
    assert rows[0]["metrics"] == rows[1]["metrics"]


def test_progress_says_how_it_ended(tmp_path):
    t = trainer(tmp_path)
    t.fit(bank(), data())
    assert json.loads((t.folder / "progress.json").read_text())["saes"]["topk"]["state"] == "finished"


@pytest.mark.parametrize("sae", [TopK(d_sae=1, k=1), ReLU(d_sae=1)], ids=lambda sae: type(sae).__name__)
def test_a_single_latent_has_results(sae, tmp_path):
    t = trainer(tmp_path)
    t.fit(bank(one=sae, two=TopK(d_sae=32, k=4)), data())
    assert {row["name"]: row["state"] for row in t.results} == {"one": "finished", "two": "finished"}


def test_one_saes_failing_report_costs_no_other_its_own(tmp_path, monkeypatch):
    measure = Evaluation.latents

    def fails_for_the_first(self, sae, i):
        if i == 0:
            raise IndexError("no such dimension")
        return measure(self, sae, i)

    monkeypatch.setattr(Evaluation, "latents", fails_for_the_first)
    t = trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"SAE 'a': clusters .* could not be measured \(no such dimension\)"):
        t.fit(bank(a=TopK(d_sae=32, k=4), b=TopK(d_sae=32, k=4)), data())
    rows = [json.loads(line) for line in (t.folder / "results.jsonl").read_text().splitlines()]
    assert ["clusters" in row["metrics"] for row in rows] == [False, True]
    assert all("fvu" in row["metrics"] for row in rows)


class Interrupt(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_in_a_notebook_ends_the_cell_alone(tmp_path):
    t, handler = trainer(tmp_path, callbacks=[Interrupt()]), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            t.fit(bank(), data())
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it off
    assert (t.folder / "checkpoints" / "last.ckpt").is_file()
