"""Searches: real Optuna processes on one journal, trials that share batches, pruning inside a group."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from saelight.callbacks.optuna_study import open_study
from saelight.sweep.execute.session import Request, Session
from saelight.sweep.store.sweep_folder import SweepFolder
from tests.support.commands import changed, saelight_
from tests.support.sweeps import BASE, write

SEARCH = {
    "name": "search",
    "base": "base.yaml",
    "method": "bayes",
    "run_cap": 9,
    "max_saes": 3,
    "metric": {"name": "val/fvu", "goal": "minimize"},
    "parameters": {
        "sae.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 3e-2},
        "trainer.val_check_interval": {"value": 0.1},
    },
    "cases": [
        {"name": "topk", "parameters": {"sae.class_path": {"value": "TopK"}, "sae.k": {"values": [2, 4]}}},
        {"name": "relu", "parameters": {"sae.class_path": {"value": "ReLU"}}},
    ],
}


def trials(journal: str) -> list[optuna.trial.FrozenTrial]:
    return open_study(journal, "search").trials


def rows(folder: str) -> list[dict]:
    return json.loads(Path(folder, "results.json").read_text())


def test_a_search_learns_from_groups_and_prunes_inside_them(capsys):
    file = write(changed(SEARCH, early_terminate={"type": "hyperband", "min_iter": 1, "max_iter": 9, "eta": 3}))
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--set", "sae.expansion=2") == 0
    out = capsys.readouterr().out
    found = {row["name"].split("-")[1]: row for row in rows("runs/search")}
    study = trials("runs/search/journal.log")
    assert len(found) == len(study) == 9
    assert Counter(row["group"] for row in found.values()) == {"group-000": 3, "group-001": 3, "group-002": 3}
    for trial in study:
        row = found[f"{trial.number:04d}"]
        assert row["config"]["init_args"]["expansion"] == 2
        assert row["config"]["init_args"]["lr"] == trial.params["sae.lr"]
        if row["state"] == "finished":
            assert trial.state.name == "COMPLETE"
            assert trial.value == row["metrics"]["fvu"]
        else:
            assert row["state"] == "pruned"
            assert row["reason"].startswith("at validation ")
            assert trial.state.name == "PRUNED"
            assert row["steps"] < 20
            siblings = [r for r in found.values() if r["group"] == row["group"] and r["state"] == "finished"]
            assert all(row["seconds"] < sibling["seconds"] for sibling in siblings)
    assert {trial.state.name for trial in study} == {"COMPLETE", "PRUNED"}
    best = min((t for t in study if t.state.name == "COMPLETE"), key=lambda t: t.value)
    assert f"best: trial-{best.number:04d}" in out


@pytest.mark.slow
def test_two_runners_on_one_journal_and_a_kill():
    file = write(SEARCH, changed(BASE, data__init_args__rows=8_000))
    command = [sys.executable, "-m", "saelight", "sweep", "run", file, "--devices", "cpu", "--journal", "shared.log"]
    runners = [subprocess.Popen([*command, "--out", out], stdout=subprocess.DEVNULL) for out in ("a", "b")]
    end = time.monotonic() + 90
    while not list(Path("a/runs").glob("*/progress.json")):
        assert time.monotonic() < end
        time.sleep(0.05)
    runners[0].kill()
    assert runners[1].wait(timeout=180) == 0
    runners[0].wait()
    assert any(trial.state.name == "RUNNING" for trial in trials("shared.log"))
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--journal", "shared.log", "--out", "a", "--resume") == 0
    states = [trial.state.name for trial in trials("shared.log")]
    assert states == ["COMPLETE"] * 9
    names = [row["name"] for out in ("a", "b") for row in rows(out)]
    assert len(names) == len(set(names)) == 9


@pytest.mark.parametrize(
    ("sweep", "args", "message"),
    [
        (changed(SEARCH, run_cap=None), [], "method bayes has no end of its own: add `run_cap: 40`"),
        (SEARCH, ["--filter", "relu"], "a search makes its own: lower run_cap"),
        (changed(SEARCH, early_terminate={"type": "median"}), [], "early_terminate.type must be one of hyperband, halving"),
        (changed(SEARCH, parameters={"sae.kk": {"min": 1, "max": 3}}), [], "has no field 'kk'"),
    ],
)
def test_refusals(sweep, args, message, capsys):
    assert saelight_("sweep", "run", write(sweep), *args) == 1
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_values_stay_within_their_ranges_and_are_the_drawn_ones():
    from saelight.sweep.execute.optuna_chooser import OptunaChooser

    chooser = OptunaChooser(open_study("j.log", "s", direction="minimize", seed=1).ask())
    assert 2 <= chooser.number("k", 2, 5, log=False, whole=True) <= 5
    assert 1e-4 <= chooser.number("lr", 1e-4, 1e-2, log=True, whole=False) <= 1e-2
    assert 0 <= chooser.quantile("beta") <= 1


def test_what_a_search_could_not_make_of_a_trial_is_told_and_no_success(capsys):
    """Of these, one in four is wider than its dictionary."""
    wide = changed(
        SEARCH,
        cases=None,
        sae={"class_path": "TopK"},
        parameters={"sae.d_sae": {"values": [8, 64]}, "sae.k": {"values": [2, 32]}},
    )
    del wide["cases"]
    file = write(changed(wide, run_cap=16, max_saes=16))
    session = Session(Request(file, devices="cpu"))
    with session.locked():
        search = session.prepare()._work([])
        groups = search.take(1)
        failures = search.failures()
    assert failures
    assert all("k = 32 exceeds d_sae = 8" in line and line.startswith("trial-00") for line in failures)
    assert sum(len(session.index.trials[key]) for group in groups for key in group.members) == 16 - len(failures)
    # They stay known to the next runner.
    assert SweepFolder("runs/search").read().failed == session.index.failed


@pytest.mark.slow
def test_a_search_in_which_anything_failed_is_no_success(capsys):
    base = changed(BASE, data__init_args__rows=300)
    wide = {key: value for key, value in SEARCH.items() if key != "cases"} | {"sae": {"class_path": "TopK"}, "run_cap": 8}
    wide["parameters"] = {"sae.d_sae": {"values": [8, 64]}, "sae.k": {"values": [2, 32]}}
    assert saelight_("sweep", "run", write(wide, base), "--devices", "cpu") == 1
    out = capsys.readouterr().out
    assert "failed: trial-00" in out
    assert "k = 32 exceeds d_sae = 8" in out
