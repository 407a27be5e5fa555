"""Stop anywhere and go on: bit for bit the unbroken run."""

import contextlib
import os
import signal
import time

import lightning as L
import pytest
import torch
import yaml

import saelight
from saelight.run import run_folder
from tests.support.checkpoints import assert_same_state
from tests.support.commands import saelight_
from tests.support.processes import start, wait_until
from tests.support.runs import StopAt, data, trainer
from tests.support.variants import VARIANTS

SETTINGS = {"max_epochs": 3, "val_check_interval": 0.5}
DATA = {"rows": 830, "val_rows": 100}  # 8 batches and 30 rows over: epochs straddle


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    t = trainer(tmp_path_factory.mktemp("unbroken"), **SETTINGS)
    t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data(**DATA))
    assert t.global_step == 24
    return run_folder.checkpoint(t.folder)


# Inside an epoch, before and after a validation in its middle, at its end, at the next one's first step, at the last.
@pytest.mark.parametrize("step", [1, 3, 4, 5, 7, 8, 9, 12, 16, 23])
def test_every_stop_resumes_exactly(step, unbroken, tmp_path):
    path = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConnectionAbortedError):
        trainer(tmp_path, callbacks=[StopAt(step, path)], **SETTINGS).fit(
            saelight.SAEBank(dict(VARIANTS), d_in=16), data(**DATA)
        )
    t = trainer(tmp_path, **SETTINGS)
    t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data(**DATA), ckpt_path=str(path))
    assert t.folder == tmp_path / "stopped"
    assert_same_state(run_folder.checkpoint(t.folder), unbroken)


def test_accumulation_resumes_exactly(tmp_path):
    settings = SETTINGS | {"accumulate_grad_batches": 3, "val_check_interval": None}
    checkpoints = []
    for step in (None, 4):
        path = tmp_path / f"{step}" / "checkpoints" / "last.ckpt"
        callbacks = [StopAt(step, path)] if step else []
        t = trainer(tmp_path, callbacks=callbacks, **settings)
        fit = {"model": saelight.SAEBank(dict(VARIANTS), d_in=16), "datamodule": data(**DATA)}
        if step:
            with pytest.raises(ConnectionAbortedError):
                t.fit(**fit)
            t = trainer(tmp_path, **settings)
            t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data(**DATA), ckpt_path=str(path))
        else:
            t.fit(**fit)
        checkpoints.append(run_folder.checkpoint(t.folder))
    assert_same_state(*checkpoints)


def test_a_finished_run_can_be_made_longer(tmp_path):
    t = trainer(tmp_path, max_epochs=1)
    t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data(**DATA))
    longer = trainer(tmp_path, max_epochs=3)
    bank = saelight.SAEBank(dict(VARIANTS), d_in=16)
    with pytest.warns(UserWarning, match="begun for 8 optimizer steps and is now to end at 24"):
        longer.fit(bank, data(**DATA), ckpt_path="last")
    assert (longer.global_step, bank.tokens_seen, longer.folder) == (24, 2400, t.folder)


@pytest.mark.parametrize(
    ("bank", "rows", "message"),
    [
        ({"relu": saelight.ReLU(lr=1e-3)}, {}, r"model\.saes\.abs_topk\.class_path is .* there and 'absent' here"),
        (VARIANTS | {"relu": saelight.ReLU(expansion=2, sparsity=0.2, lr=1e-3)}, {}, r"relu.*sparsity is 0.1 there and 0.2"),
        (VARIANTS, {"batch_size": 50}, "batch size"),
        (VARIANTS, {"seed": 1}, "seed|fingerprint|data"),
        (VARIANTS, {"rows": 900}, "rows|fingerprint|data"),
    ],
    ids=["other SAEs", "other sparsity", "other batch size", "other data seed", "other rows"],
)
def test_another_config_is_refused(bank, rows, message, unbroken, tmp_path):
    with pytest.raises(saelight.UserError, match=message):
        trainer(tmp_path, **SETTINGS).fit(
            saelight.SAEBank(dict(bank), d_in=16), data(**DATA | rows), ckpt_path=str(unbroken)
        )


CONFIG = {
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
    "model": {
        "saes": {
            "relu": {"class_path": "ReLU", "init_args": {"expansion": 2, "lr": 1e-3}},
            "gated": {"class_path": "Gated", "init_args": {"expansion": 3, "lr": 1e-3}},
            "topk": {"class_path": "TopK", "init_args": {"expansion": 4, "k": 4, "lr": 1e-3, "dead_after": 1000}},
        }
    },
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"d_in": 32, "n_features": 64, "rows": 12500, "val_rows": 500, "batch_size": 100},
    },
}


FIT = ("fit", "--config", "config.yaml")


@pytest.fixture(scope="module")
def unbroken_command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": CONFIG["trainer"] | {"name": "job"}}))
    with contextlib.chdir(folder):
        assert saelight_(*FIT) == 0
    return run_folder.checkpoint(folder / "runs" / "job")


class Impatient(L.Callback):
    """A supervisor that says it twice."""

    def on_train_batch_start(self, trainer, bank, batch, batch_idx):
        if batch_idx == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_costs_no_checkpoint(tmp_path):
    t, d = trainer(tmp_path, callbacks=[Impatient()]), data()
    with pytest.raises(SystemExit):
        t.fit(saelight.SAEBank({"topk": VARIANTS["topk"]}, d_in=d.d_in), d)
    assert torch.load(run_folder.checkpoint(t.folder), weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_stopped_command_goes_on_exactly(how, unbroken_command, tmp_path):
    settings = CONFIG["trainer"] | {
        "name": "job",
        # For the kill: a checkpoint at every step, so that some are being written when it comes.
        "callbacks": [{"class_path": "saelight.callbacks.SaveCheckpoint", "init_args": {"minutes": 0.0}}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": settings}))
    process = start(*FIT)
    checkpoint = run_folder.checkpoint(tmp_path / "runs" / "job")
    wait_until(lambda: checkpoint.exists() or process.poll() is not None)
    time.sleep(0.5)
    process.send_signal(how)
    said, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "Traceback" not in said
    stopped = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 0 < stopped < 250
    assert saelight_(*FIT, "--ckpt_path", "last") == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["job"]
    assert_same_state(checkpoint, unbroken_command)
    # One row per logged step: nothing of the killed run stands twice.
    rows = (tmp_path / "runs" / "job" / "logs" / "topk" / "metrics.csv").read_text().splitlines()
    header, *rows = [row.split(",") for row in rows]
    steps = [int(row[header.index("step")]) for row in rows if row[header.index("train/loss")]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 250
