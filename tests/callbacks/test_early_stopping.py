"""Early stopping ends one SAE and no other, on all processes alike, and a resumed run knows what was ended."""

import json

import pytest
import torch

import saelight
from saelight import StopEarly
from saelight.bank.outcome import Outcome
from saelight.run import run_folder
from saelight.schedules import Schedule
from tests.callbacks.training import DATA, LEARNING, STEADY, STILL, VALIDATIONS, fit
from tests.support.banks import assert_equal
from tests.support.callbacks import Terminate
from tests.support.checkpoints import assert_same, assert_same_state
from tests.support.commands import changed, saelight_, write
from tests.support.runs import data, trainer


def test_one_sae_is_ended_and_the_others_go_on_unchanged(tmp_path, capsys):
    saes = {"still": STILL, "learning": LEARNING}
    bank, t = fit(tmp_path, saes, [StopEarly(patience=3)])
    why = "no progress in 3 validations, at step 8"
    assert bank.retired == {0: Outcome("retired", why)}
    assert t.global_step == 24
    rows = {row["name"]: row for row in map(json.loads, (t.folder / "results.jsonl").read_text().splitlines())}
    states = {name: (row["state"], row["reason"]) for name, row in rows.items()}
    assert states == {"still": ("retired", why), "learning": ("finished", None)}
    exported = json.loads((t.folder / "saes" / "still" / "config.json").read_text())["training"]
    assert exported.pop("metrics") == rows["still"]["metrics"]
    assert exported == {"state": "retired", "reason": why, "steps": 8, "tokens": 800}
    assert f"retired: {why}" in capsys.readouterr().out
    alone, _ = fit(tmp_path, {"learning": LEARNING})
    assert_equal(bank["learning"].state_dict(), alone["learning"].state_dict())


def test_training_ends_with_the_last_sae(tmp_path):
    bank, t = fit(tmp_path, {"a": STILL, "b": STILL}, [StopEarly(patience=2)])
    assert t.global_step == 6
    assert set(bank.retired) == {0, 1}
    assert {path.name for path in (t.folder / "saes").iterdir()} == {"a", "b"}
    again = trainer(tmp_path, callbacks=[StopEarly(patience=2)], **VALIDATIONS)
    resumed = saelight.SAEBank({"a": STILL, "b": STILL}, d_in=16)
    again.fit(resumed, data(**DATA), ckpt_path="last")
    assert resumed.retired == bank.retired
    assert again.global_step <= 7  # which is when it sees that nothing is left to do
    assert_equal(resumed.saes.state_dict(), bank.saes.state_dict())


def test_an_sae_that_gets_sparser_makes_progress(tmp_path):
    # λ grows throughout, so that FVU and L0 move against each other.
    saes = {"a": saelight.ReLU(d_sae=20, sparsity=3.0, sparsity_warmup=1.0, lr=1e-2, schedule=STEADY)}
    bank, _ = fit(tmp_path, saes, [StopEarly(patience=2)])
    assert not bank.retired
    bank, t = fit(tmp_path, saes, [StopEarly(patience=2, metrics=["fvu"])])
    assert bank.retired
    assert t.global_step < 24


def test_each_restart_of_the_learning_rate_begins_anew(tmp_path):
    restarts = Schedule(kind="warm_restarts", T_0=6, T_mult=1, warmup=0)  # three validations a cycle
    saes = {"once": STILL, "again": saelight.TopK(d_sae=20, k=4, lr=1e-12, schedule=restarts)}
    bank, _ = fit(tmp_path, saes, [StopEarly(patience=3)])
    assert set(bank.retired) == {0}
    bank, _ = fit(tmp_path, saes, [StopEarly(patience=2)])
    assert set(bank.retired) == {0, 1}


def test_nothing_counts_before_its_time(tmp_path):
    bank, _ = fit(tmp_path, {"a": STILL}, [StopEarly(patience=1, after=0.5)])
    assert bank.retired[0].reason == "no progress in 1 validations, at step 14"


def test_what_is_not_finite_is_no_progress(tmp_path):
    # Without variance there is no FVU.
    bank = saelight.SAEBank({"a": LEARNING}, d_in=16)
    rows = torch.randn(80, 16, generator=torch.Generator().manual_seed(0)), torch.ones(80, 16)
    loaders = [torch.utils.data.DataLoader(x_ND, batch_size=10) for x_ND in rows]
    trainer(tmp_path, callbacks=[StopEarly(patience=2)], **VALIDATIONS).fit(bank, *loaders)
    assert bank.retired[0].reason == "no progress in 2 validations, at step 4"


def test_another_training_begins_without_memory_of_the_last(tmp_path):
    stop = StopEarly(patience=3)
    for _ in range(2):
        bank, _ = fit(tmp_path, {"a": STILL, "b": LEARNING}, [stop])
        assert bank.retired[0].reason == "no progress in 3 validations, at step 8"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    _, t = fit(tmp_path_factory.mktemp("unbroken"), {"still": STILL, "learning": LEARNING}, [StopEarly(patience=3)])
    return run_folder.checkpoint(t.folder)


# Validations follow the even steps; at the eighth one SAE is ended.
@pytest.mark.parametrize("step", [1, 2, 6, 7, 8, 9, 16])
def test_a_resumed_run_ends_the_same_sae_at_the_same_step(step, unbroken, tmp_path):
    saes = {"still": STILL, "learning": LEARNING}
    with pytest.raises(SystemExit):
        fit(tmp_path, saes, [StopEarly(patience=3), Terminate(step)])
    t = trainer(tmp_path, callbacks=[StopEarly(patience=3)], **VALIDATIONS)
    t.fit(saelight.SAEBank(saes, d_in=16), data(**DATA), ckpt_path="last")
    assert_same_state(run_folder.checkpoint(t.folder), unbroken)
    stopped, whole = (
        torch.load(ckpt, weights_only=True)["callbacks"] for ckpt in (run_folder.checkpoint(t.folder), unbroken)
    )
    assert_same(stopped["StopEarly"], whole["StopEarly"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience must be at least 1"),
        ({"metrics": ["loss"]}, "metrics must be some of fvu, l0"),
        ({"metrics": []}, "metrics must be some of fvu, l0"),
        ({"min_delta": -0.1}, "min_delta must be in"),
        ({"after": 1.5}, "StopEarly: after: 1.5 is no length of time"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(saelight.UserError, match=message):
        StopEarly(**settings)


def test_without_validation_there_is_nothing_to_judge_by(tmp_path):
    with pytest.raises(saelight.UserError, match="hold out data"):
        trainer(tmp_path, callbacks=[StopEarly()]).fit(saelight.SAEBank({"a": STILL}, d_in=16), data(val_rows=0))
    with pytest.raises(saelight.UserError, match="hold out data"):
        trainer(tmp_path, callbacks=[StopEarly()], limit_val_batches=0).fit(saelight.SAEBank({"a": STILL}, d_in=16), data())


def test_a_config_names_it_in_short(tmp_path, capsys):
    stop = {"class_path": "StopEarly", "init_args": {"patience": 2}}
    still = {"class_path": "TopK", "init_args": {"k": 4, "lr": 1e-12, "schedule": {"kind": "constant", "warmup": 0}}}
    config = changed(trainer__callbacks=[stop], trainer__val_check_interval=0.5, trainer__max_epochs=3)
    config["model"]["saes"]["still"] = still
    assert saelight_("fit", "--config", write(config)) == 0
    assert "retired: no progress in 2 validations, at step 15" in capsys.readouterr().out
    assert saelight_("fit", "--config", "runs/cfg/config.yaml") == 0
    assert saelight_("fit", "--config", "cfg.yaml", "--trainer.callbacks.metrics", "[fvuu]") != 0
    assert "did you mean 'fvu'?" in capsys.readouterr().err
