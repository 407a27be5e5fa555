"""Sweeps that are killed, stopped or crash, and what the next runner makes of it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from saelight.sweep.execute.child import fit_arguments
from saelight.sweep.store.sweep_folder import SweepFolder
from tests.support.commands import changed, refused, saelight_
from tests.support.processes import start, wait_until
from tests.support.sweeps import BASE, SWEEP, assert_equal, rows, weights, write

LONGER = changed(
    BASE,
    data__init_args__rows=60_000,
    # Kills find a checkpoint to go on from.
    trainer__callbacks=[{"class_path": "saelight.callbacks.SaveCheckpoint", "init_args": {"minutes": 0.005}}],
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SAE 'relu-lr0.00.'. L0 has stayed")  # a run so short leaves it no time to fall
def test_killed_twice_and_resumed_equals_unbroken():
    file = write(SWEEP, LONGER)
    command = ["sweep", "run", file, "--devices", "cpu,cpu", "--out", "broken"]
    runs = [Path("broken/runs") / f"group-00{i}" for i in range(2)]

    runner = start(*command)
    wait_until(lambda: all((run / "checkpoints/last.ckpt").is_file() for run in runs))
    pids = [event["pid"] for event in map(json.loads, Path("broken/state.jsonl").read_text().splitlines())]
    runner.kill()
    runner.communicate()
    # The children are told to stop by the runner's death, and do: nothing trains on unseen.
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    assert not any((run / "results.jsonl").is_file() for run in runs)

    assert saelight_("sweep", "run", file, "--devices", "cpu,cpu", "--out", "broken") == 1  # --resume is missing
    runner = start(*command, "--resume")
    wait_until(lambda: Path("broken/state.jsonl").read_text().count("submitted") == 4)
    child = json.loads(Path("broken/state.jsonl").read_text().splitlines()[-1])["pid"]
    time.sleep(0.5)
    os.kill(child, signal.SIGKILL)
    out, _ = runner.communicate(timeout=180)
    assert runner.returncode == 0, out
    assert "failed, once more: killed by SIGKILL" in out

    for run in runs:
        assert saelight_("fit", "--config", f"broken/groups/{run.name}.yaml") == 0
    assert_equal(weights("broken"), weights("."))
    unbroken = [json.loads(line) for path in Path("runs").rglob("results.jsonl") for line in path.read_text().splitlines()]
    assert {name: row["metrics"] for name, row in rows("broken").items()} == {
        row["name"]: row["metrics"] for row in unbroken
    }


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_finished_groups_are_not_run_again():
    file = write(SWEEP, LONGER)
    command = ["sweep", "run", file, "--devices", "cpu", "--max-saes", "3", "--out", "stopped"]
    runner = start(*command)
    wait_until(lambda: Path("stopped/runs/group-001/progress.json").is_file())
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=180)
    assert runner.returncode == 130
    assert "stopping: every run ends its batch and writes its checkpoint" in out
    assert "the same command with --resume goes on" in out
    assert Path("stopped/runs/group-001/checkpoints/last.ckpt").is_file()
    states = {row["group"]: row["state"] for row in rows("stopped").values()}
    assert states == {"group-000": "finished", "group-001": "interrupted"}
    resumed = start(*command, "--resume")
    out, _ = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, out
    assert "group-000: " not in out
    assert {row["state"] for row in rows("stopped").values()} == {"finished"}


@pytest.mark.slow
def test_a_crash_is_tried_once_more_and_then_recorded(capsys):
    data = {"class_path": "tests.sweep.crashing.Crashing", "init_args": BASE["data"]["init_args"] | {"marker": "crashes"}}
    file = write(SWEEP, BASE | {"data": data})
    Path("crashes").write_text("2")
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--out", "s", "--limit", "2") == 1
    assert {row["state"] for row in rows("s").values()} == {"failed"}
    assert {row["error"] for row in rows("s").values()} == {"exit code 7: the last words; see s/logs/group-000.txt"}
    assert saelight_("sweep", "status", "s") == 0
    assert "2 SAEs: 2 failed\ngroup-000 failed: exit code 7" in capsys.readouterr().out
    # What failed is tried again by the next runner, which bears with one more crash.
    Path("crashes").write_text("1")
    assert saelight_("sweep", "run", "s", "--resume", "--devices", "cpu") == 0
    assert "failed, once more: exit code 7: " in capsys.readouterr().out
    assert {row["state"] for row in rows("s").values()} == {"finished"}


def test_two_runners_on_one_folder(capsys):
    file = write(SWEEP, LONGER)
    runner = start("sweep", "run", file, "--devices", "cpu", "--out", "s")
    wait_until(lambda: Path("s/state.jsonl").is_file())
    line = refused(capsys, "sweep", "run", file, "--devices", "cpu", "--out", "s", "--resume")
    assert f"another runner (process {runner.pid} on " in line
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=180)
    assert runner.returncode == 130


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_what_would_not_end():
    data = {"class_path": "tests.sweep.hanging.Hanging", "init_args": BASE["data"]["init_args"]}
    runner = start("sweep", "run", write(SWEEP, BASE | {"data": data}), "--devices", "cpu", "--out", "s", "--limit", "2")
    wait_until(Path("hangs").exists)
    [pid] = [event["pid"] for event in map(json.loads, Path("s/state.jsonl").read_text().splitlines())]
    runner.send_signal(signal.SIGINT)
    time.sleep(2)
    assert runner.poll() is None
    assert is_alive(pid)
    runner.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, _ = runner.communicate(timeout=180)
    assert time.monotonic() - began < 30
    assert runner.returncode == 130
    assert "Ctrl-C again: at once" in out
    assert not is_alive(pid)
    assert {row["state"] for row in rows("s").values()} == {"interrupted"}


@pytest.mark.slow
def test_a_runner_killed_as_it_starts_a_child_leaves_nobody_training():
    file = write(SWEEP, LONGER)
    runner = start("sweep", "run", file, "--devices", "cpu", "--out", "s")
    # The journal has the child as soon as it is there, long before it could ask to be told of the runner's death.
    wait_until(lambda: Path("s/state.jsonl").is_file() and Path("s/state.jsonl").read_text().endswith("\n"))
    runner.kill()
    pid = json.loads(Path("s/state.jsonl").read_text())["pid"]
    runner.communicate()
    wait_until(lambda: not is_alive(pid), 30)
    assert not list(Path("s").rglob("last.ckpt"))


def test_a_run_that_its_time_ended_is_gone_on_with():
    """A group as its child trains it, three steps and a millisecond a life."""
    base = changed(BASE, trainer__max_epochs=None, trainer__max_steps=3, trainer__max_time={"milliseconds": 1})
    assert saelight_("sweep", "expand", write(SWEEP, base), "--out", "s") == 0
    folder, lives = SweepFolder("s"), 0
    while not folder.finished("group-000"):
        arguments = fit_arguments(folder, "group-000")
        assert any(word.startswith("--ckpt_path=") for word in arguments) == (lives > 0)
        assert saelight_(*arguments) == 0
        lives += 1
        assert lives <= 3
    assert lives > 1
    assert {row["steps"] for row in map(json.loads, Path("s/runs/group-000/results.jsonl").read_text().splitlines())} == {3}
