"""Halving ends the worst SAEs at its rungs and no others, says what it saved, and knows after a stop what it has done."""

import json
import math

import pytest
import torch

import saelight
from saelight import Halving, StopEarly
from saelight.run import run_folder
from saelight.schedules import Schedule
from tests.callbacks.training import DATA, LEARNING, STILL, fit
from tests.support.banks import assert_equal
from tests.support.callbacks import Explode, Terminate
from tests.support.checkpoints import assert_same, assert_same_state
from tests.support.commands import changed, saelight_, write
from tests.support.runs import data, trainer

# 24 steps in three epochs, a validation after every second one.
RATES = {"d": 1e-12, "b": 3e-3, "c": 1e-3, "a": 1e-2, "e": 1e-5}  # the higher, the lower FVU
SAES = {
    name: saelight.TopK(d_sae=20, k=4, lr=lr, seed=0, schedule=Schedule(kind="constant", warmup=0))
    for name, lr in RATES.items()
}


class Dictate(saelight.Halving):
    """Halving by metrics that the test makes up, in place of those of the SAEs."""

    def __init__(self, values, **kwargs) -> None:
        super().__init__(**kwargs)
        self.values = values

    def on_validation_end(self, trainer, bank):
        bank.last_metrics = {name: {self.metric: self.values[name]} for name in bank.names}
        super().on_validation_end(trainer, bank)


def ended(bank):
    """By SAE: the step at which halving ended it."""
    return {bank.names[i]: int(outcome.reason.rsplit(" ", 1)[1]) for i, outcome in bank.retired.items()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    halving = Halving()
    bank, t = fit(tmp_path_factory.mktemp("unbroken"), SAES, [halving])
    return bank, t, halving


def test_the_worst_are_ended_at_each_rung(unbroken):
    bank, t, _ = unbroken
    assert ended(bank) == {"d": 6, "e": 6, "c": 12}
    assert t.global_step == 24
    rows = {row["name"]: row for row in map(json.loads, (t.folder / "results.jsonl").read_text().splitlines())}
    assert rows["a"]["state"] == rows["b"]["state"] == "finished"
    assert rows["c"]["state"] == "retired"
    assert rows["c"]["reason"].startswith("halving: fvu 0.")
    assert rows["c"]["reason"].endswith(" ranked 3 of 3 at step 12")
    assert {row["reason"].split("ranked ")[1] for row in (rows["d"], rows["e"])} == {"4 of 5 at step 6", "5 of 5 at step 6"}
    exported = json.loads((t.folder / "saes" / "c" / "config.json").read_text())["training"]
    assert exported.pop("metrics") == rows["c"]["metrics"]
    assert exported == {"state": "retired", "reason": rows["c"]["reason"], "steps": 12, "tokens": 1200}


def test_the_survivors_are_as_without_halving(unbroken, tmp_path):
    bank, _, _ = unbroken
    whole, _ = fit(tmp_path, SAES)
    for name in "ab":
        assert_equal(bank[name].state_dict(), whole[name].state_dict())
    assert not torch.equal(bank["c"].W_dec, whole["c"].W_dec)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep": 0.2}, {"c": 6, "e": 6, "d": 6, "b": 6}),  # and one stays
        ({"keep": 0.7}, {"d": 6, "e": 12}),  # 4 of 5, 3 of 4
        ({"rungs": [0.5]}, {"d": 12, "e": 12}),
        ({"rungs": [12, 0.25]}, {"d": 6, "e": 6, "c": 12}),
        ({"rungs": [{"tokens": 700}]}, {"d": 8, "e": 8}),  # step 7 has no validation, step 8 has
        ({"rungs": [{"epochs": 1}, 23]}, {"d": 8, "e": 8}),
        ({"rungs": [1, 2], "keep": 0.9}, {}),  # 5 of 5: rounded up
        ({"rungs": [3, 4], "keep": 0.75}, {"d": 4, "e": 4}),  # together, in turn: 4 of 5, 3 of 4
        ({"rungs": [0.25], "goal": "maximize", "metric": "explained_variance"}, {"d": 6, "e": 6}),
        ({"rungs": [0.25], "goal": "maximize", "metric": "val/fvu"}, {"a": 6, "b": 6}),
    ],
)
@pytest.mark.filterwarnings("ignore:Halving. 1 of 2 rungs met no validation")
def test_who_is_ended_when(settings, expected, tmp_path):
    bank, _ = fit(tmp_path, SAES, [Halving(**settings)])
    assert ended(bank) == expected


def test_what_is_not_finite_ranks_last_and_equals_by_name(tmp_path):
    values = {"d": 0.5, "b": math.nan, "c": 0.5, "a": 0.5, "e": -math.inf}
    bank, _ = fit(tmp_path, SAES, [Dictate(values, rungs=[0.25], keep=0.6)])
    assert ended(bank) == {"b": 6, "e": 6}
    bank, _ = fit(tmp_path, SAES, [Dictate(values, rungs=[0.25], keep=0.4, goal="maximize")])
    assert ended(bank) == {"b": 6, "e": 6, "d": 6}
    bank, _ = fit(tmp_path, SAES, [Dictate(dict.fromkeys("abcde", math.nan), keep=0.1)])
    assert ended(bank) == {"b": 6, "c": 6, "d": 6, "e": 6}


def test_a_share_is_not_rounded_up_by_rounding(tmp_path):
    saes = {f"{i:03}": saelight.TopK(d_sae=4, k=1) for i in range(100)}
    bank, _ = fit(tmp_path, saes, [Dictate(dict.fromkeys(saes, 1.0), rungs=[2], keep=0.07)], max_steps=3)
    assert list(ended(bank)) == sorted(saes)[7:]


def test_only_those_in_training_are_ranked(tmp_path):
    saes = {"still": STILL, "learning": LEARNING, "a": SAES["a"], "b": SAES["b"]}
    callbacks = [Explode("a", after=3), StopEarly(patience=2, after=0.2), Halving(rungs=[0.5])]
    with pytest.warns(UserWarning, match="'a' is quarantined"):
        bank, _ = fit(tmp_path, saes, callbacks)
    assert bank.retired[0].reason.startswith("no progress")
    (other,) = bank.retired.keys() - {0}
    assert bank.retired[other].reason.endswith("ranked 2 of 2 at step 12")


def test_the_compute_saved_is_weighted_by_parameters(unbroken, tmp_path, monkeypatch):
    _, _, halving = unbroken
    assert halving.saved == pytest.approx((18 + 18 + 12) / (5 * 24))
    wide = saelight.TopK(d_sae=60, k=4, lr=1e-12)
    halving = Halving(rungs=[0.5])
    said = []
    monkeypatch.setattr("saelight.callbacks.halving.rank_zero_info", said.append)
    bank, _ = fit(tmp_path, {"wide": wide, "a": SAES["a"]}, [halving])
    assert ended(bank) == {"wide": 12}
    of_wide, of_a = (sum(p.numel() for p in sae.parameters()) for sae in bank.saes)
    assert halving.saved == pytest.approx(of_wide * 12 / ((of_wide + of_a) * 24))
    assert said[-1] == "Halving saved 37% of the training of 2 SAEs: 12 of 48 SAE-steps, weighted by parameters"


def test_the_end_of_training_ends_nobody_early(tmp_path):
    halving = Halving()
    with pytest.warns(UserWarning, match=r"2 of 2 rungs met no validation before training ended.*val_check_interval"):
        bank, _ = fit(tmp_path, SAES, [halving], max_epochs=1, val_check_interval=1.0)
    assert not bank.retired
    assert halving.saved == 0


def test_another_training_begins_without_memory_of_the_last(tmp_path):
    halving = Halving()
    for _ in range(2):
        bank, _ = fit(tmp_path, SAES, [halving])
        assert ended(bank) == {"d": 6, "e": 6, "c": 12}
        assert halving.saved == pytest.approx(0.4)


# At the sixth and the twelfth step SAEs are ended.
@pytest.mark.parametrize("step", [2, 5, 6, 7, 11, 12, 13, 20])
def test_a_resumed_run_ends_the_same_saes(step, unbroken, tmp_path):
    _, whole, _ = unbroken
    with pytest.raises(SystemExit):
        fit(tmp_path, SAES, [Halving(), Terminate(step)])
    halving = Halving()
    t = trainer(tmp_path, callbacks=[halving], max_epochs=3, val_check_interval=0.25)
    t.fit(saelight.SAEBank(dict(SAES), d_in=16), data(**DATA), ckpt_path="last")
    assert_same_state(run_folder.checkpoint(t.folder), run_folder.checkpoint(whole.folder))
    states = (
        torch.load(run_folder.checkpoint(f), weights_only=True)["callbacks"]["Halving"] for f in (t.folder, whole.folder)
    )
    assert_same(*states)
    assert halving.saved == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rungs": []}, "rungs is empty"),
        ({"rungs": [0.5, 1.5]}, "Halving: rungs: 1.5 is no length of time"),
        ({"keep": 0.0}, r"keep must be in \(0, 1\)"),
        ({"keep": 1}, r"keep must be in \(0, 1\)"),
        ({"goal": "min"}, "goal must be minimize or maximize"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(saelight.UserError, match=message):
        Halving(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "val/fuv"}, "no metric 'fuv'; did you mean 'fvu'.; a validation has cosine, dead, dense, .*, mmcs"),
        ({"metric": "density"}, "no metric 'density'; "),
        ({"rungs": [0.5, 20]}, "a rung at step 20 is not before the end of training, at step 20: move it forward"),
        ({"rungs": [1.0]}, "a rung at step 20 is not before the end"),
    ],
)
def test_what_cannot_be_is_said_before_training(settings, message, tmp_path):
    with pytest.raises(saelight.UserError, match=message):
        trainer(tmp_path, callbacks=[Halving(**settings)]).fit(saelight.SAEBank(dict(SAES), d_in=16), data())
    assert not list(tmp_path.rglob("results.jsonl"))


def test_without_validation_there_is_nothing_to_rank_by(tmp_path):
    with pytest.raises(saelight.UserError, match=r"Halving judges by validations.*hold out data, or drop Halving"):
        fit(tmp_path, SAES, [Halving()], limit_val_batches=0)


def test_a_trial_run_is_no_halving(tmp_path):
    bank, _ = fit(tmp_path, SAES, [Halving(rungs=[0.9])], fast_dev_run=True)
    assert not bank.retired


def test_a_config_names_it_in_short(tmp_path, capsys):
    halving = {"class_path": "Halving", "init_args": {"rungs": [0.3, {"epochs": 2}, 14], "keep": 0.6}}
    config = changed(trainer__callbacks=[halving], trainer__val_check_interval=0.5, trainer__max_epochs=3)
    still = {"class_path": "TopK", "init_args": {"k": 4, "lr": 1e-12}}
    config["model"]["saes"] |= {"still": still, "still2": still}
    assert saelight_("fit", "--config", write(config)) == 0
    out = capsys.readouterr().out
    assert "retired: halving: fvu" in out
    rows = list(map(json.loads, (tmp_path / "runs" / "cfg" / "results.jsonl").read_text().splitlines()))
    assert saelight_("fit", "--config", "runs/cfg/config.yaml") == 0
    again = map(json.loads, (tmp_path / "runs" / "cfg-2" / "results.jsonl").read_text().splitlines())
    assert [row["state"] for row in again] == [row["state"] for row in rows]
    assert saelight_("fit", "--config", "cfg.yaml", "--trainer.callbacks.keep", "2") != 0
    assert "keep must be in (0, 1)" in capsys.readouterr().err
