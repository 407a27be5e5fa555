"""Whole sweeps in child processes: what they train, how they survive being killed, and what they refuse."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from tests.sweep.files import BASE, SWEEP, changed, write
from tests.test_cli import saelight_

ROOT = Path(__file__).parents[2]
LONGER = changed(
    BASE,
    data__init_args__rows=120_000,
    # Kills find a checkpoint to go on from.
    trainer__callbacks=[{"class_path": "saelight.callbacks.SaveCheckpoint", "init_args": {"minutes": 0.005}}],
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty folder; their children find the tests' own classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def start(*args: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "saelight", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def rows(folder: str) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(Path(folder, "results.json").read_text())}


def weights(folder: str) -> dict[str, dict[str, torch.Tensor]]:
    return {path.parent.name: load_file(path) for path in sorted(Path(folder, "runs").rglob("sae.safetensors"))}


def assert_equal(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for key in a[name]:
            assert torch.equal(a[name][key], b[name][key]), (name, key)


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        time.sleep(0.02)


def refused(capsys, *args: str) -> str:
    """The one line of a refused command."""
    assert saelight_(*args) not in (0, 130)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("saelight: error: ")
    return lines[0]


def test_grouped_is_alone_and_results_hold_every_point(capsys):
    file = write(changed(SWEEP, parameters={"sae.lr": {"values": [1e-3, 3e-3]}}))
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "one") == 0
    runner = start("sweep", "run", file, "--devices", "cpu", "--out", "two", "--max-saes", "3")
    wait_for(Path("two/index.json").is_file)
    watcher = start("sweep", "status", "two", "--watch")
    runner.communicate()
    assert runner.returncode == 0
    watched = watcher.communicate(timeout=30)[0]
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
        assert {"fvu", "l0"} <= row["metrics"].keys()
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


def test_killed_twice_and_resumed_equals_unbroken():
    file = write(SWEEP, LONGER)
    command = ["sweep", "run", file, "--devices", "cpu,cpu", "--out", "broken"]
    runs = [Path("broken/runs") / f"group-00{i}" for i in range(2)]

    runner = start(*command)
    wait_for(lambda: all((run / "checkpoints/last.ckpt").is_file() for run in runs))
    pids = [event["pid"] for event in map(json.loads, Path("broken/state.jsonl").read_text().splitlines())]
    runner.kill()
    runner.communicate()
    # The children are told to stop by the runner's death, and do: nothing trains on unseen.
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    assert not any((run / "results.jsonl").is_file() for run in runs)

    assert saelight_("sweep", "run", file, "--devices", "cpu,cpu", "--out", "broken") == 1  # --resume is missing
    runner = start(*command, "--resume")
    wait_for(lambda: Path("broken/state.jsonl").read_text().count("submitted") == 4)
    child = json.loads(Path("broken/state.jsonl").read_text().splitlines()[-1])["pid"]
    time.sleep(0.5)
    os.kill(child, signal.SIGKILL)
    out, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, out
    assert "failed, once more: killed by SIGKILL" in out

    assert saelight_("sweep", "run", file, "--devices", "cpu,cpu", "--out", "whole") == 0
    assert_equal(weights("broken"), weights("whole"))
    assert {name: row["metrics"] for name, row in rows("broken").items()} == {
        name: row["metrics"] for name, row in rows("whole").items()
    }


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_stops_cleanly_and_finished_groups_are_not_run_again():
    file = write(SWEEP, LONGER)
    command = ["sweep", "run", file, "--devices", "cpu", "--max-saes", "3", "--out", "stopped"]
    runner = start(*command)
    wait_for(lambda: Path("stopped/runs/group-001/progress.json").is_file())
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "stopping: every run ends its batch and writes its checkpoint" in out
    assert "the same command with --resume goes on" in out
    assert Path("stopped/runs/group-001/checkpoints/last.ckpt").is_file()
    states = {row["group"]: row["state"] for row in rows("stopped").values()}
    assert states == {"group-000": "finished", "group-001": "interrupted"}
    resumed = start(*command, "--resume")
    out, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, out
    assert "group-000: " not in out
    assert {row["state"] for row in rows("stopped").values()} == {"finished"}


def test_a_crash_is_tried_once_more_and_then_recorded(capsys):
    data = {"class_path": "tests.sweep.crashing.Crashing", "init_args": BASE["data"]["init_args"] | {"marker": "crashes"}}
    file = write(SWEEP, BASE | {"data": data})
    Path("crashes").write_text("1")
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "once", "--limit", "2") == 0
    assert "failed, once more: exit code 7: " in capsys.readouterr().out
    assert {row["state"] for row in rows("once").values()} == {"finished"}
    Path("crashes").write_text("2")
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "twice", "--limit", "2") == 1
    assert {row["state"] for row in rows("twice").values()} == {"failed"}
    assert all(row["error"].endswith("the last words") for row in rows("twice").values())
    assert saelight_("sweep", "status", "twice") == 0
    assert "2 SAEs: 2 failed\ngroup-000 failed: exit code 7" in capsys.readouterr().out
    # What failed is tried again, and what is wrong by then is not.
    assert saelight_("sweep", "run", "twice", "--resume", "--devices", "cpu") == 0
    assert {row["state"] for row in rows("twice").values()} == {"finished"}


def test_a_longer_axis_keeps_what_is_finished(capsys):
    file = write()
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "s") == 0
    before = rows("s")
    written = {path: path.stat().st_mtime_ns for path in Path("s/runs").rglob("sae.safetensors")}
    write(changed(SWEEP, parameters={"sae.lr": {"values": [1e-3, 2e-3, 3e-3]}}))
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "s", "--resume") == 0
    after = rows("s")
    assert len(after) == 9
    assert {name: row["seed"] for name, row in after.items() if name in before} == {n: r["seed"] for n, r in before.items()}
    assert {row["group"] for name, row in after.items() if name not in before} == {"group-001"}
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert len(weights("s")) == 9


def test_points_that_are_the_same_train_once_and_appear_under_each_name():
    runs = [{"name": "a", "sae.k": 2}, {"name": "b", "sae.k": 3}, {"name": "again", "sae.k": 2}]
    file = write({"name": "same", "base": "base.yaml", "sae": {"class_path": "TopK"}, "runs": runs})
    assert saelight_("sweep", "run", file, "--devices", "cpu") == 0
    found = rows("runs/same")
    assert list(found) == ["a", "again", "b"]
    assert found["a"]["metrics"] == found["again"]["metrics"] != found["b"]["metrics"]
    assert list(weights("runs/same")) == ["a", "b"]


def test_refusals(capsys):
    file = write()
    line = refused(capsys, "sweep", "run", file, "--devices", "cuda:7")
    assert "there is no device 'cuda:7'; here are " in line
    assert "no index.json" in refused(capsys, "sweep", "status", ".")
    assert "write --set KEY=VALUE" in refused(capsys, "sweep", "expand", file, "--set", "sae.lr")
    assert "expected a whole number of at least 1" in refused(capsys, "sweep", "run", file, "--limit", "0")
    assert not Path("runs").exists()

    assert saelight_("sweep", "expand", file, "--out", "s") == 0
    capsys.readouterr()
    yaml = Path("s/groups/group-000.yaml")
    text = yaml.read_text()
    yaml.write_text(text.replace("k: 4", "k: 3"))
    line = refused(capsys, "sweep", "run", "s")
    assert "s/groups/group-000.yaml was edited and no longer fits the index" in line
    yaml.write_text(text)
    Path("s/runs/group-000").mkdir(parents=True)
    yaml.write_text(text.replace("k: 4", "k: 3"))
    assert "was edited, after its run began," in refused(capsys, "sweep", "run", "s", "--resume")
    yaml.write_text(text)
    assert "s was begun (1 of 1 groups): go on with --resume" in refused(capsys, "sweep", "run", file, "--out", "s")


def test_two_runners_on_one_folder(capsys):
    file = write(SWEEP, LONGER)
    runner = start("sweep", "run", file, "--devices", "cpu", "--out", "s")
    wait_for(lambda: Path("s/state.jsonl").is_file())
    line = refused(capsys, "sweep", "run", file, "--devices", "cpu", "--out", "s", "--resume")
    assert f"another runner (process {runner.pid} on " in line
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=60)
    assert runner.returncode == 130


def test_a_dry_run_says_what_would_run_where_and_writes_nothing(capsys):
    file = write()
    assert saelight_("sweep", "run", file, "--dry-run", "--devices", "cpu,cpu") == 0
    out = capsys.readouterr().out
    assert "small: 6 points, 2 groups" in out
    assert "to run: 6 SAEs in 2 groups on cpu, cpu; disk " in out
    assert sorted(path.name for path in Path().iterdir()) == ["base.yaml", "sweep.yaml"]


def test_missing_data_is_said_at_once_and_refused_only_when_it_is_to_run(capsys):
    base = BASE | {"data": {"class_path": "ActivationDataModule", "init_args": {"path": "shards/none"}}}
    file = write(SWEEP, base)
    assert saelight_("sweep", "expand", file) == 0
    assert "note: no shards at shards/none" in capsys.readouterr().out
    assert "no shards at shards/none" in refused(capsys, "sweep", "run", file)


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["sweep", "--help"], "torch"),
        (["sweep", "run", "--help"], "torch"),
        (["sweep", "status", "s"], "torch"),
        (["sweep", "results", "s"], "torch"),
        (["sweep", "expand", "sweep.yaml", "--out", "t"], "lightning"),
        (["sweep", "run", "sweep.yaml", "--dry-run"], "lightning"),
    ],
)
def test_the_front_is_light(args, absent):
    assert saelight_("sweep", "expand", write(), "--out", "s") == 0
    code = (
        f"import sys\nfrom saelight.cli.main import main\ntry:\n    main({args!r})\nexcept SystemExit:\n    pass\n"
        f"assert {absent!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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
