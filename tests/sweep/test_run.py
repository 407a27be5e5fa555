"""Whole sweeps in child processes: what they train, and what is kept of it."""

import contextlib
import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from tests.support.commands import changed, saelight_
from tests.support.processes import start, wait_until
from tests.support.sweeps import BASE, SWEEP, assert_equal, rows, weights, write


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a sweep file, its base, and `one`: its six points, trained in one group."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        assert saelight_("sweep", "run", write(), "--devices", "cpu", "--out", "one") == 0
    return folder


def test_grouped_is_alone_and_results_hold_every_point(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    file = "sweep.yaml"
    runner = start("sweep", "run", file, "--devices", "cpu", "--out", "two", "--max-saes", "3")
    wait_until(Path("two/index.json").is_file)
    watcher = start("sweep", "status", "two", "--watch")
    runner.communicate()
    assert runner.returncode == 0
    watched = watcher.communicate(timeout=180)[0]
    assert re.search(r"^6 SAEs: .*(running|waiting)", watched, re.MULTILINE)
    assert watched.rstrip().endswith("6 SAEs: 6 finished")
    assert len(weights("one")) == 6
    assert_equal(weights("one"), weights("two"))
    together, apart = rows("one"), rows("two")
    assert {row["group"] for row in apart.values()} == {"group-000", "group-001"}
    for name, row in together.items():
        assert row["metrics"] == apart[name]["metrics"]
        assert row["state"] == "finished"
        assert row["seconds"] > 0
        assert row["tokens_per_second"] > 0
        assert {"fvu", "fvu_median", "l0"} <= row["metrics"].keys()
        assert row["fvu_disagrees"] in (False, True)
        assert row["device"] == "cpu"
        assert Path(row["folder"], "config.json").is_file()
        assert json.loads(Path(row["folder"], "config.json").read_text())["seed"] == row["seed"]
    columns = parquet.read_table("one/results.parquet").to_pylist()
    assert [(row["name"], row["metrics.fvu"]) for row in columns] == [(n, r["metrics"]["fvu"]) for n, r in together.items()]
    with Path("one/results.csv").open() as file:
        assert [(row["name"], float(row["metrics.fvu"])) for row in csv.DictReader(file)] == [
            (row["name"], row["metrics.fvu"]) for row in columns
        ]
    capsys.readouterr()
    assert saelight_("sweep", "status", "one") == 0
    table = capsys.readouterr().out
    assert "6 SAEs: 6 finished" in table
    assert "topk-lr0.001-k2" in table
    # Anyone can run a group again without the sweep.
    assert saelight_("fit", "--config", "one/groups/group-000.yaml") == 0
    for name, tensors in weights("one").items():
        alone = load_file(f"runs/group-000/saes/{name}/sae.safetensors")
        assert all(torch.equal(alone[key], tensors[key]) for key in tensors)


@pytest.mark.slow
def test_a_longer_axis_keeps_what_is_finished(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    before = rows("one")
    written = {path: path.stat().st_mtime_ns for path in Path("one/runs").rglob("sae.safetensors")}
    file = write(changed(SWEEP, parameters={"sae.lr": {"values": [1e-3, 2e-3, 3e-3]}}))
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "one", "--resume") == 0
    after = rows("one")
    assert len(after) == 9
    assert {name: row["seed"] for name, row in after.items() if name in before} == {n: r["seed"] for n, r in before.items()}
    assert {row["group"] for name, row in after.items() if name not in before} == {"group-001"}
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert len(weights("one")) == 9


def test_points_that_are_the_same_train_once_and_appear_under_each_name():
    runs = [{"name": "a", "sae.k": 2}, {"name": "b", "sae.k": 3}, {"name": "again", "sae.k": 2}]
    file = write({"name": "same", "base": "base.yaml", "sae": {"class_path": "TopK"}, "runs": runs})
    assert saelight_("sweep", "run", file, "--devices", "cpu") == 0
    found = rows("runs/same")
    assert list(found) == ["a", "again", "b"]
    assert found["a"]["metrics"] == found["again"]["metrics"] != found["b"]["metrics"]
    assert list(weights("runs/same")) == ["a", "b"]


@pytest.mark.slow
def test_halving_ends_the_worst_of_each_group(capsys):
    halving = {"type": "halving", "rungs": [0.5], "keep": 0.5}
    base = changed(BASE, trainer__val_check_interval=0.25)
    file = write({**SWEEP, "early_terminate": halving, "metric": {"name": "val/fvu"}}, base)
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "halved", "--max-saes", "3") == 0
    for group in ("group-000", "group-001"):
        found = [row for row in rows("halved").values() if row["group"] == group]
        assert sorted(row["state"] for row in found) == ["finished", "finished", "retired"]
        retired = next(row for row in found if row["state"] == "retired")
        assert retired["reason"].startswith("halving: fvu ")
        assert retired["steps"] == 10
        assert all(retired["metrics"]["fvu"] > 0 and row["steps"] == 20 for row in found if row is not retired)
        assert "Halving saved 17%" in Path("halved/logs", f"{group}.txt").read_text()


@pytest.mark.slow
def test_ddp_gives_every_run_all_devices(capsys):
    file = write(SWEEP, BASE)
    assert saelight_("sweep", "run", file, "--launcher", "ddp", "--devices", "cpu,cpu", "--limit", "2") == 0
    assert "group-000: 2 SAEs on cpu,cpu" in capsys.readouterr().out
    for row in rows("runs/small").values():
        assert row["state"] == "finished"
        # Two processes halve the steps of an epoch.
        assert (row["steps"], row["tokens"]) == (10, 2000)
        assert row["device"] == "cpu,cpu"
    log = Path("runs/small/logs/group-000.txt").read_text()
    assert "MEMBER: 2/2" in log


@pytest.mark.slow
def test_a_folder_keeps_its_groups_and_a_filter_runs_a_part_of_it(capsys):
    file = write()
    assert saelight_("sweep", "expand", file, "--out", "s", "--max-saes", "2", "--devices", "cpu") == 0
    before = sorted(path.name for path in Path("s/groups").iterdir())
    assert len(before) == 3
    assert saelight_("sweep", "run", "s", "--dry-run", "--devices", "cpu") == 0
    assert "6 points, 3 groups" in capsys.readouterr().out
    assert saelight_("sweep", "run", "s", "--filter", "relu", "--devices", "cpu") == 0
    assert {row["name"]: row["state"] for row in rows("s").values()} == {
        "relu-lr0.001": "finished",
        "relu-lr0.003": "finished",
    }
    assert saelight_("sweep", "run", "s", "--resume", "--devices", "cpu") == 0
    assert Counter(row["state"] for row in rows("s").values()) == {"finished": 6}
    assert [row["group"] for name, row in rows("s").items() if name.startswith("relu")] == ["group-000"] * 2


def test_only_what_can_change_weights_is_trained_again(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)

    def left(*callbacks: str | dict) -> str:
        write(base=changed(BASE, trainer__callbacks=list(callbacks)))
        assert saelight_("sweep", "run", "sweep.yaml", "--out", "one", "--resume", "--dry-run", "--devices", "cpu") == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert left() == left("LearningRateMonitor") == "to run: nothing: all that is asked for has been trained"
    assert left({"class_path": "StopEarly", "init_args": {"patience": 30}}).startswith("to run: 6 SAEs in 1 groups")
