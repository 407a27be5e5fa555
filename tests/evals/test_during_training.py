"""Loss recovered while SAEs train: in validations, in logs, and as what Halving and sweeps judge by."""

import csv
import json
from pathlib import Path

import pytest
import torch

import saelight
from saelight.callbacks import EvaluateOnModel
from saelight.errors import UserError
from saelight.run.metric_names import ON_MODEL
from tests.support.commands import refused, saelight_, write
from tests.support.runs import trainer

SAES = {f"k{k}": {"class_path": "TopK", "init_args": {"d_sae": 64, "k": k, "lr": 5e-3}} for k in (1, 8)}


def config(**callback):
    on_model = {
        "class_path": "EvaluateOnModel",
        "init_args": {"text": ["text.txt"], "windows": 4, "model": "model"} | callback,
    }
    return {
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "val_check_interval": 5,
            "log_every_n_steps": 5,
            "callbacks": [on_model],
        },
        "model": {"saes": SAES},
        "data": {"class_path": "ActivationDataModule", "init_args": {"path": "acts", "batch_size": 25}},
    }


def logged(name, run="runs/cfg", key="val/loss_recovered"):
    rows = csv.DictReader(Path(run, "logs", name, "metrics.csv").read_text().splitlines())
    return {int(row["step"]): float(row[key]) for row in rows if row.get(key)}


@pytest.mark.usefixtures("here")
def test_each_validation_has_it(capsys):
    halving = {"class_path": "Halving", "init_args": {"metric": "val/loss_recovered", "goal": "maximize", "rungs": [5]}}
    given = config()
    given["trainer"]["callbacks"].append(halving)
    assert saelight_("fit", "--config", write(given)) == 0
    for name in SAES:
        curve = logged(name)
        assert {5, 10} <= curve.keys()
        assert list(logged(name, key="val/ce_clean").values()) == pytest.approx(
            [logged(name, key="val/ce_clean")[5]] * len(curve)
        )
    rows = {row["name"]: row for row in saelight.results("runs/cfg")}
    assert rows["k1"]["state"] == "retired"
    assert "loss_recovered" in rows["k1"]["reason"]
    assert rows["k8"]["state"] == "finished"
    assert {f"metrics.{key}" for key in ON_MODEL} <= rows["k8"].keys()
    # What a validation measured is what the command measures on the same windows.
    table = saelight.evaluate("runs/cfg/saes/k8", "model", ["text.txt"], max_tokens=4 * 24)
    assert table[0]["metrics"]["ce_sae"] == pytest.approx(rows["k8"]["metrics.ce_sae"], rel=1e-4)


@pytest.mark.usefixtures("here")
def test_every_n_steps_and_no_weight_changes():
    data = saelight.ActivationDataModule(path="acts", batch_size=25)
    weights = []
    for i, callbacks in enumerate(([], [EvaluateOnModel(["text.txt"], model="model", windows=2, every=4)])):
        bank = saelight.SAEBank({"a": saelight.TopK(d_sae=64, k=4)}, d_in=data.d_in)
        trainer(Path(), name=f"r{i}", max_steps=10, max_epochs=None, callbacks=callbacks, val_check_interval=10).fit(
            bank, data
        )
        weights.append(bank["a"].W_dec.detach())
    assert torch.equal(*weights)
    steps = logged("a", "runs/r1")
    assert {4, 8} <= steps.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_run_goes_on_with_what_was_measured():
    callback = EvaluateOnModel(["text.txt"], model="model", windows=2, every=4)
    data = saelight.ActivationDataModule(path="acts", batch_size=25)
    run = trainer(Path(), name="r", max_steps=5, max_epochs=None, callbacks=[callback], enable_checkpointing=True)
    run.fit(saelight.SAEBank({"a": saelight.TopK(d_sae=64, k=4)}, d_in=data.d_in), data)
    again = EvaluateOnModel(["text.txt"], model="model", windows=2, every=4)
    again.load_state_dict(json.loads(json.dumps(callback.state_dict())))
    assert again.state_dict() == callback.state_dict()
    assert callback.state_dict()["measured"]["a"]["loss_recovered"] < 1.01


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"text": []}, "EvaluateOnModel: text must be a list of file patterns"),
        ({"text": "texts/*.txt"}, "EvaluateOnModel: text must be a list of file patterns"),
        ({"windows": 0}, "EvaluateOnModel: windows must be at least 1, got 0"),
        ({"every": 0}, "EvaluateOnModel: every: 0 is no length of time"),
    ],
)
def test_settings_that_make_no_sense(settings, line):
    with pytest.raises(UserError, match=line):
        EvaluateOnModel(**{"text": ["text.txt"]} | settings)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"text": ["none.txt"]}, "no file matches 'none.txt'"),
        (
            {"hook": "layers.0.mlp.down_proj.input"},
            "the bank has activations of width 32, and model.layers.0.mlp.down_proj.input",
        ),
        ({"hook": "layers.7"}, "the model has no module 'layers.7'; nearest: "),
        ({"text": ["short.txt"]}, "the text has 4 tokens, less than a window of 24"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_measured_is_said_before_training(settings, line):
    data = saelight.ActivationDataModule(path="acts", batch_size=25)
    callback = EvaluateOnModel(**{"text": ["text.txt"], "model": "model"} | settings)
    with pytest.raises(UserError, match=line):
        trainer(Path(), callbacks=[callback]).fit(saelight.SAEBank({"a": saelight.TopK(d_sae=64)}, d_in=data.d_in), data)
    assert not Path("runs/run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_it_is_one_line_on_the_command_line(capsys):
    line = refused(capsys, "fit", "--config", write(config(hook="layers.7")))
    assert "the model has no module 'layers.7'; nearest: " in line
    assert not Path("runs/cfg").exists()


SWEEP = {
    "name": "s",
    "base": "cfg.yaml",
    "metric": {"name": "val/loss_recovered", "goal": "maximize"},
    "parameters": {"sae.class_path": {"value": "TopK"}, "sae.d_sae": {"value": 64}, "sae.k": {"values": [1, 8]}},
}


@pytest.mark.usefixtures("here")
def test_a_sweep_judges_by_it_where_it_is_measured(capsys):
    base = config()
    base["model"] = {"saes": {"any": SAES["k1"]}}
    write(base)
    halving = SWEEP | {"early_terminate": {"type": "halving", "rungs": [0.5]}}
    assert saelight_("sweep", "expand", write(halving, "s.yaml")) == 0
    (group,) = Path("runs/s").rglob("group-*.yaml")
    assert "metric: loss_recovered" in group.read_text()
    base["trainer"]["callbacks"] = []
    write(base)
    line = refused(capsys, "sweep", "expand", "s.yaml", "--out", "runs/t")
    assert "val/loss_recovered takes the language model: add EvaluateOnModel to trainer.callbacks" in line
