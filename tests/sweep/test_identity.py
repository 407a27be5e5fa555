"""Which points are the same: what can change a weight tells them apart, spelling never does."""

import copy
from pathlib import Path
from typing import Any

import pytest

from saelight.errors import UserError
from saelight.sweep.plan.points import expand
from saelight.sweep.plan.resolve import resolve
from saelight.sweep.plan.spec import read
from tests.support.sweeps import BASE, write

SWEEP = {"base": "base.yaml", "sae": {"class_path": "TopK", "expansion": 2}, "parameters": {"sae.k": {"values": [2, 4]}}}

OWN = '''
from lightning.pytorch import Callback
from saelight import StopEarly


class Sooner(StopEarly):
    """Ends SAEs by another rule."""

    def __init__(self, at: float = 5.0, metric: str = "fvu") -> None:
        super().__init__()
        self.at = at


class Looks(Callback):
    affects_weights = False

    def __init__(self, at: int = 5) -> None:
        self.at = at
'''


@pytest.fixture(autouse=True)
def own_callbacks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_callbacks.py").write_text(OWN)


def hashes(base: dict[str, Any], sweep: dict[str, Any] | None = None) -> list[str]:
    found = read(write(sweep or SWEEP, base))
    return [entry.hash for entry in resolve(found, expand(found)[0]).entries]


def having(section: str, **settings: Any) -> dict[str, Any]:
    base = copy.deepcopy(BASE)
    target = base["data"]["init_args"] if section == "data" else base[section]
    target |= settings
    return base


def callbacks(*given: Any) -> dict[str, Any]:
    return having("trainer", callbacks=list(given))


def callback(path: str, **settings: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": settings}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (callbacks("StopEarly"), callbacks(callback("saelight.callbacks.StopEarly"))),
        (
            callbacks("StopEarly"),
            callbacks(callback("saelight.StopEarly", patience=5, metrics=["fvu", "l0"], min_delta=1e-2)),
        ),
        (callbacks(callback("Halving", rungs=[0.5])), callbacks(callback("saelight.Halving", rungs=[0.5], keep=0.5))),
        (BASE, having("trainer", callbacks=[])),
        (BASE, callbacks("LearningRateMonitor")),
        (BASE, callbacks(callback("lightning.pytorch.callbacks.ModelSummary", max_depth=2))),
        (BASE, callbacks(callback("saelight.callbacks.SaveCheckpoint", minutes=3))),
        (BASE, callbacks("own_callbacks.Looks")),
        (callbacks("own_callbacks.Sooner"), callbacks(callback("own_callbacks.Sooner", at=5))),
        (callbacks(callback("own_callbacks.Sooner", at=1e-3)), callbacks(callback("own_callbacks.Sooner", at=0.001))),
        (BASE, having("trainer", precision=32, limit_train_batches=1.0, max_steps=-1, accumulate_grad_batches=1)),
        (BASE, having("trainer", devices=2, log_every_n_steps=1, val_check_interval=0.5)),
        (BASE, having("data", noise=0, normalise="rms", seed=0)),
        (BASE, having("data", val_batch_size=7, predict_rows=3)),
        (BASE, BASE | {"data": BASE["data"] | {"class_path": "saelight.SyntheticDataModule"}}),
        (BASE, having("model", seed=0, predict_top=4)),
    ],
)
def test_spelling_makes_no_other_point(one, other):
    assert hashes(one) == hashes(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BASE, callbacks("StopEarly")),
        (callbacks("StopEarly"), callbacks(callback("StopEarly", patience=4))),
        (callbacks("own_callbacks.Sooner"), callbacks(callback("own_callbacks.Sooner", at=30))),
        (callbacks("own_callbacks.Sooner"), callbacks("StopEarly")),
        (BASE, callbacks("lightning.pytorch.callbacks.StochasticWeightAveraging") | {}),
        (callbacks("StopEarly"), having("trainer", callbacks=["StopEarly"], val_check_interval=0.5)),
        (callbacks("StopEarly"), having("trainer", callbacks=["StopEarly"], limit_val_batches=1)),
        (BASE, having("trainer", max_epochs=2)),
        (BASE, having("trainer", limit_train_batches=1)),
        (BASE, having("trainer", accumulate_grad_batches=2)),
        (BASE, having("trainer", precision="bf16-mixed")),
        (BASE, having("trainer", max_time="00:01:00:00")),
        (BASE, having("data", noise=0.1)),
        (BASE, having("data", batch_size=50)),
        (BASE, having("model", max_tokens=500)),
    ],
)
def test_whatever_can_change_weights_makes_another_point(one, other):
    if "StochasticWeightAveraging" in str(other):
        other["trainer"]["callbacks"] = [callback("lightning.pytorch.callbacks.StochasticWeightAveraging", swa_lrs=1e-3)]
    assert not set(hashes(one)) & set(hashes(other))


def test_a_default_spelt_out_is_the_same_sae():
    spelt = {"class_path": "saelight.saes.TopK", "d_sae": 16, "lr": 2e-4 / (16 / 2**14) ** 0.5, "clip": 1}
    assert hashes(BASE) == hashes(BASE, SWEEP | {"sae": spelt})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("StopErly", "no callback 'StopErly'; did you mean 'StopEarly'"),
        ("own_callbacks.Soner", "no callback 'own_callbacks.Soner'"),
        (callback("StopEarly", patiense=3), "unknown key 'StopEarly.patiense'; did you mean 'patience'"),
        (callback("own_callbacks.Sooner", at="soon"), "Sooner.at"),
        (3, "expected {class_path"),
    ],
)
def test_a_callback_that_cannot_be_built_is_found_before_anything_runs(given, message):
    with pytest.raises(UserError, match=message):
        hashes(callbacks(given))
