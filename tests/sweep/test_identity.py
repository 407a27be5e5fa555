"""Which points are the same: what can change a weight tells them apart, spelling never does."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saelight
from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.run import export
from saelight.sweep.plan.points import expand
from saelight.sweep.plan.resolve import resolve
from saelight.sweep.plan.spec import read
from tests.support.sources import D, write_own_source
from tests.support.sweeps import BASE, write

SAE = {"class_path": "TopK", "expansion": 2}
SWEEP = {"base": "base.yaml", "sae": SAE, "parameters": {"sae.k": {"values": [2, 4]}}}

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


class Acts(Looks):
    pass
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
        (BASE, having("data", noise=0, normalise="standard", seed=0)),
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
        (BASE, callbacks("own_callbacks.Acts")),
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
        (BASE, having("data", normalise="rms")),
        (BASE, having("model", max_tokens=500)),
    ],
)
def test_whatever_can_change_weights_makes_another_point(one, other):
    if "StochasticWeightAveraging" in str(other):
        other["trainer"]["callbacks"] = [callback("lightning.pytorch.callbacks.StochasticWeightAveraging", swa_lrs=1e-3)]
    assert not set(hashes(one)) & set(hashes(other))


def test_a_default_spelt_out_is_the_same_sae():
    spelt = {"class_path": "saelight.saes.TopK", "d_sae": 16, "optimizer": "latent_adamw", "clip": 1}
    assert hashes(BASE) == hashes(BASE, SWEEP | {"sae": spelt})


@pytest.fixture
def trained():
    """The folders of two trained SAEs, and one that holds the first again."""
    for folder, seed in (("one", 0), ("two", 1), ("moved", 0)):
        sae = saelight.TopK(d_sae=16, k=2).build(8, seed)
        facts = {"name": folder, "seed": seed, "source": {}, "training": {}}
        export.write(sae, Path(folder), normalisation=Normalisation("rms", 0.5), **facts)


def test_a_point_that_starts_from_weights_is_known_by_them(trained):
    def from_folder(*folders):
        return hashes(
            BASE, {"base": "base.yaml", "sae": SAE | {"k": 2}, "parameters": {"sae.init_from": {"values": list(folders)}}}
        )

    one, two = from_folder("one", "two")
    assert one != two
    assert from_folder("one", "moved") == [one]
    assert one not in hashes(BASE)
    described = json.loads(Path("moved/config.json").read_text()) | {"normalisation": {"kind": "rms", "scale": 0.6}}
    del described["sha256"]
    Path("moved/config.json").write_text(json.dumps(described))
    assert len(from_folder("one", "moved")) == 2


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ({"init_from": "none"}, "none holds no trained SAE"),
        ({"class_path": "AbsTopK", "init_from": "one"}, "of another variant, TopK, not AbsTopK"),
        ({"expansion": 3, "init_from": "one"}, "has d_sae 16, this SAE 24: set d_sae 16"),
    ],
)
def test_weights_that_cannot_be_the_start_are_found_before_anything_runs(trained, sae, message):
    with pytest.raises(UserError, match=message):
        hashes(BASE, {"base": "base.yaml", "sae": SAE | {"k": 2} | sae, "runs": [{"name": "a"}]})


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


@pytest.fixture
def own_data(tmp_path):
    write_own_source(tmp_path)
    yield {"class_path": "own_source.ArrayDataModule", "init_args": {"path": "x.npy", "batch_size": 100}}
    sys.modules.pop("own_source", None)


def test_a_source_of_ones_own_is_asked_like_saelights(own_data):
    base = BASE | {"data": own_data, "trainer": BASE["trainer"] | {"accumulate_grad_batches": 5}}
    sae = SWEEP["sae"] | {"k": 4}
    found = read(write(SWEEP | {"sae": sae, "parameters": {"data.max_samples": {"values": [700, 1100]}}}, base))
    short, long = resolve(found, expand(found)[0]).entries
    assert (short.d_sae, short.tokens, long.tokens) == (2 * D, 700, 1100)
    assert all(short.memory[kind][2] < long.memory[kind][2] for kind in ("cpu", "gpu"))
    assert short.hash != long.hash
    np.save("moved.npy", np.load("x.npy"))
    moved = own_data | {"init_args": {"path": "moved.npy", "batch_size": 100, "predict_rows": 3}}
    assert hashes(BASE | {"data": own_data}) == hashes(BASE | {"data": moved})


def test_data_that_are_not_there_are_said_before_anything_runs(own_data):
    absent = own_data | {"init_args": {"path": "none.npy"}}
    with pytest.raises(UserError, match=r"data.path cannot be read: .*none.npy"):
        hashes(BASE | {"data": absent})
    found = read(write(SWEEP, BASE | {"data": {"class_path": "ActivationDataModule", "init_args": {}}}))
    assert resolve(found, expand(found)[0]).missing == [
        "data.path is not set: give it in the base, or as --set data.path=..."
    ]


@pytest.mark.parametrize(
    ("trainer", "tokens"),
    [
        ({"max_epochs": 2}, 4000),
        ({"max_epochs": 2, "limit_train_batches": 1}, 200),
        ({"max_epochs": 2, "limit_train_batches": 0.25}, 1000),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 4000),
        ({"max_epochs": 9, "max_steps": 8, "accumulate_grad_batches": 3}, 2000 + 300),
        ({"max_epochs": None, "max_steps": 5, "accumulate_grad_batches": 3}, 1500),
    ],
)
def test_a_group_says_how_many_tokens_it_trains_on(trainer, tokens):
    found = read(write(SWEEP, having("trainer", **trainer)))
    assert {entry.tokens for entry in resolve(found, expand(found)[0]).entries} == {tokens}
