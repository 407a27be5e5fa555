"""What a sweep cannot be is refused in one line before anything runs, and nothing is left behind."""

import os
from pathlib import Path
from typing import Any

import pytest

from saelight.sweep.plan.spec import read
from tests.support.commands import changed, refused, saelight_
from tests.support.commands import write as write_config
from tests.support.sweeps import BASE, SWEEP, write

SEARCH = {
    "name": "search",
    "base": "base.yaml",
    "method": "bayes",
    "run_cap": 9,
    "max_saes": 3,
    "sae": {"class_path": "TopK"},
    "parameters": {
        "sae.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "sae.k": {"values": [2, 4], "probabilities": [0.3, 0.7]},
    },
}
HYPERBAND = {"type": "hyperband", "min_iter": 1, "eta": 3}
HALVING = {"type": "halving", "rungs": [0.5]}
KNOWN = "; known: val/l0, val/l1, val/dead, val/dense, val/fvu, "


def with_metric(name: Any, sweep: dict[str, Any] = SEARCH, **more: Any) -> dict[str, Any]:
    return sweep | {"metric": {"name": name}} | more


METRICS = {
    "unknown": (with_metric("val_miracle_distance"), "there is no metric 'val_miracle_distance'" + KNOWN),
    "of training": (with_metric("train/loss"), "there is no metric 'train/loss'" + KNOWN),
    "near": (with_metric("val/fvus"), "there is no metric 'val/fvus'; did you mean 'val/fvu'?"),
    "another library's": (with_metric("val/r2_score"), "there is no metric 'val/r2_score'"),
    "without its stage": (with_metric("cosine"), "there is no metric 'cosine'; did you mean 'val/cosine'?"),
    "no text": (with_metric(5), "there is no metric 5"),
    "of a grid": (with_metric("val/x", SWEEP), "there is no metric 'val/x'"),
    "of halving": (with_metric("val/x", SWEEP, early_terminate=HALVING), "there is no metric 'val/x'"),
    "too late for pruning": (
        with_metric("val/silhouette", early_terminate=HYPERBAND),
        "measured once, when training is over",
    ),
    "too late for halving": (with_metric("val/clusters", SWEEP, early_terminate=HALVING), "and this sweep judges before"),
    "no goal": (changed(SEARCH, metric={"goal": "min"}), "metric.goal must be one of minimize, maximize, got 'min'"),
    "more than W&B's": (changed(SEARCH, metric={"target": 0.1}), "metric: unknown key 'target'; known: goal, name"),
    "no mapping": (SEARCH | {"metric": "val/fvu"}, "metric: expected a mapping, got 'val/fvu'"),
}


@pytest.mark.parametrize("case", METRICS)
@pytest.mark.parametrize("command", [("run",), ("run", "--dry-run"), ("expand",), ("export-wandb",)], ids="-".join)
def test_a_metric_that_is_not_there(case, command, capsys):
    sweep, message = METRICS[case]
    line = refused(capsys, "sweep", command[0], write(sweep), *command[1:])
    assert "sweep.yaml: metric" in line
    assert message in line
    assert not Path("runs").exists()


def test_wandb_hears_nothing_of_what_is_measured_in_the_end(capsys):
    file = write(with_metric("val/silhouette"))
    assert "measured once, when training is over" in refused(capsys, "sweep", "export-wandb", file)
    assert saelight_("sweep", "expand", file) == 0


UNMEASURED = {
    "no validation": (BASE | {"trainer": BASE["trainer"] | {"limit_val_batches": 0}}, "val/mmcs", "limit_val_batches is 0"),
    "no rows for it": (changed(BASE, data__init_args__val_rows=0), "val/fvu", "the data leave no rows for them"),
}


@pytest.mark.parametrize("case", UNMEASURED)
def test_a_metric_that_these_runs_never_have(case, capsys):
    base, name, message = UNMEASURED[case]
    line = refused(capsys, "sweep", "run", write(with_metric(name), base), "--devices", "cpu")
    assert f"{name} comes from validations, and " in line
    assert message in line
    # A plain grid judges by nothing.
    assert saelight_("sweep", "expand", write(with_metric(name, SWEEP), base)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters__sae.k": {"values": [2, "x"]}}, "k: expected int, got x"),
        ({"parameters__sae.k": {"values": [2, 999]}}, "k = 999 exceeds d_sae = 64"),
        ({"cases": [{"parameters": {"sae.clip": {"values": [1, -1]}}}, {"name": "plain"}]}, "clip"),
        ({"early_terminate": HYPERBAND | {"eta": 1}}, "early_terminate.eta must be a whole number of at least 2, got 1"),
        ({"early_terminate": HYPERBAND | {"min_iter": "x"}}, "early_terminate.min_iter must be a whole number"),
        ({"early_terminate": HYPERBAND | {"min_iter": 4, "max_iter": 3}}, "max_iter must be a whole number of at least 4"),
        ({"method": "random", "run_cap": 10**9}, "more than 100,000 points"),
    ],
)
def test_what_no_trial_would_be_well_with_is_found_before_the_first(change, message, capsys):
    file = write(changed(SEARCH, **change))
    assert message in refused(capsys, "sweep", "run", file, "--devices", "cpu")
    assert not Path("runs").exists()


def test_a_grid_without_end_is_refused_at_once(capsys):
    parameters = {f"sae.{key}": {"values": list(range(1, 400))} for key in ("seed", "k", "d_sae", "warmup", "clip")}
    file = write({"base": "base.yaml", "sae": {"class_path": "TopK"}, "parameters": parameters})
    assert "more than 100,000 points: draw some by method random" in refused(capsys, "sweep", "run", file)


@pytest.mark.parametrize("name", ["../../esc", "..", ".", "/tmp/esc", "a/b", "a\\b", "", "x" * 300, "a\0b", " a"])
def test_a_sweeps_name_is_no_path(name, capsys):
    for command in (["run", "--devices", "cpu"], ["expand"], ["export-wandb"]):
        line = refused(capsys, "sweep", command[0], write(SWEEP | {"name": name}), *command[1:])
        assert "sweep.yaml: the sweep's name" in line
        assert len(line) < 250
    assert sorted(os.listdir()) == ["base.yaml", "sweep.yaml"]


def test_a_name_may_be_a_number_and_defaults_to_the_files():
    assert read(write(SWEEP | {"name": 16})).name == "16"
    assert read(write(SWEEP | {"name": None})).name == "sweep"


PYTHON = """
import math
from math import pi as angle
import numpy as np

base = "base.yaml"
RATES = [1e-3, 2e-3]
_k = 2
{more}


def make_cfgs():
    return [{{"sae": {{"class_path": "TopK", "k": _k, "lr": lr}}}} for lr in np.array(RATES)]
"""
UNKNOWN = {
    "data = {'batch_size': 3}": "unknown key 'data' (a point's own settings belong into what make_cfgs() returns; a helper",
    "trainer = {'max_epochs': 3}": "unknown key 'trainer'",
    "metrics = {'name': 'val/fvu'}": "unknown key 'metrics'; did you mean 'metric'?",
    "metric = {'name': 'val/x'}": "metric.name: there is no metric 'val/x'",
    "max_sae = 3": "unknown key 'max_sae'; did you mean 'max_saes'?",
    "rates = [1e-3]": "a helper is called _rates or RATES",
    "cases = []": "make_cfgs() and `cases` exclude each other",
    "name = '../esc'": "the sweep's name '../esc' cannot be a folder's",
    "max_saes = math": "p.py: max_saes: expected text, a number, a list or a dict",
}


@pytest.mark.parametrize("more", UNKNOWN)
def test_a_python_file_says_nothing_in_vain(more, capsys):
    write()
    Path("p.py").write_text(PYTHON.format(more=more))
    line = refused(capsys, "sweep", "run", "p.py", "--devices", "cpu")
    assert line.startswith("saelight: error: p.py: ")
    assert UNKNOWN[more] in line


def test_a_python_files_helpers_imports_and_numpy_numbers_are_welcome(capsys):
    write()
    Path("p.py").write_text(PYTHON.format(more="description = 'two rates'"))
    assert saelight_("sweep", "expand", "p.py", "--out", "s") == 0
    assert "lr: 0.002" in Path("s/groups/group-000.yaml").read_text()


@pytest.mark.parametrize("args", [["--config", "sweep.yaml"], ["-c", "base.yaml", "--config=sweep.yaml"], ["-c", "p.py"]])
def test_a_sweep_file_given_to_fit_is_told_where_it_belongs(args, capsys):
    write(name="sweep.yaml")
    Path("p.py").write_text(PYTHON.format(more=""))
    line = refused(capsys, "fit", *args)
    assert f"`saelight sweep run {args[-1].removeprefix('--config=')}`" in line
    assert "did you mean" not in line


def test_a_config_given_to_sweep_is_told_where_it_belongs(capsys):
    write_config(BASE | {"x": 1}, "base.yaml")
    assert "base.yaml is a config, and no sweep file" in refused(capsys, "sweep", "run", "base.yaml")


@pytest.fixture
def read_only(tmp_path):
    """An expanded sweep in `s`, in a folder that nobody may write to, as a user who is not root."""
    assert saelight_("sweep", "expand", write(), "--out", "s", "--devices", "cpu") == 0
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)


def test_a_read_only_folder(read_only, capsys):
    capsys.readouterr()
    for args in (["run", "sweep.yaml", "--devices", "cpu"], ["expand", "sweep.yaml"], ["export-wandb", "sweep.yaml"]):
        assert "Permission denied" in refused(capsys, "sweep", *args)
    for args in (["run", "s", "--devices", "cpu"], ["results", "s"], ["run", "sweep.yaml", "--out", "s"]):
        assert "s/" in (line := refused(capsys, "sweep", *args))
        assert "Permission denied" in line
    assert saelight_("sweep", "status", "s") == 0
    assert saelight_("sweep", "run", "sweep.yaml", "--dry-run", "--devices", "cpu") == 0


@pytest.mark.parametrize("out", ["base.yaml", "base.yaml/x", "/proc/x", "/dev/null/x", "new/" + "x" * 300])
def test_a_place_that_can_hold_no_folder(out, capsys):
    file = write()
    for args in (["run", file, "--devices", "cpu"], ["expand", file], ["export-wandb", file]):
        assert "give a sweep's folder that can be" in refused(capsys, "sweep", *args, "--out", out)
    assert sorted(os.listdir()) == ["base.yaml", "sweep.yaml"]


def test_what_the_command_line_says_is_no_traceback(capsys):
    file = write(SEARCH)
    assert "--set sae.lr={" in refused(capsys, "sweep", "run", file, "--set", "sae.lr={")
    assert "sweep.yaml is no search's journal" in refused(capsys, "sweep", "run", file, "--journal", "sweep.yaml")
    assert "no/journal.log: its folder is not there" in refused(capsys, "sweep", "run", file, "--journal", "no/journal.log")
