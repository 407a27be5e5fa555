"""Sweeps on a real Slurm: the same numbers as on this machine, whatever happens to jobs and runner."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saelight.run import run_folder
from saelight.sweep.store.journal import Journal
from tests.support.checkpoints import assert_same_state
from tests.support.processes import wait_until
from tests.support.sweeps import LONG

pytestmark = pytest.mark.slurm

SWEEP = {
    "name": "tiny",
    "base": "base.yaml",
    "sae": {"class_path": "TopK", "expansion": 2, "k": 2},
    "parameters": {"data.seed": {"values": [0, 1, 2]}},
}
GROUPS = ["group-000", "group-001", "group-002"]
SLURM = ("--launcher", "slurm", "--partition", "debug", "--gpus", "0", "--cpus", "1")
FOLDER = Path("runs/tiny")


def write(folder: Path, base: dict = LONG) -> None:
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))


def start(*args: str, cwd: Path | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "saelight", "sweep", *args]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sweep(*args: str, code: int = 0, cwd: Path | None = None) -> tuple[str, str]:
    process = start(*args, cwd=cwd)
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, out + err
    return out, err


def step(group: str) -> int:
    path = FOLDER / "runs" / group / "progress.json"
    return json.loads(path.read_text())["step"] or 0 if path.is_file() else 0


def events() -> list[dict]:
    return Journal(FOLDER).events()


def jobs() -> set[str]:
    """All jobs that were ever submitted for the sweep of the folder at hand."""
    return {event["job"] for event in events() if event["event"] == "submitted"}


def queued(cluster) -> str:
    return cluster("squeue", "--noheader", "--array", "--format=%i %T")


def assert_as_on_this_machine(local: Path) -> None:
    for group in GROUPS:
        assert_same_state(*(run_folder.checkpoint(root / "runs" / "tiny" / "runs" / group) for root in (Path(), local)))
    here, there = (json.loads((root / "results.json").read_text()) for root in (FOLDER, local / FOLDER))
    for ours, theirs in zip(here, there, strict=True):
        assert ours["metrics"] == theirs["metrics"] != {}
        for key in ("name", "state", "steps", "tokens", "threads", "config", "seed"):
            assert ours[key] == theirs[key], key


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The sweep, run by the local launcher with one thread a worker."""
    folder = tmp_path_factory.mktemp("local")
    write(folder)
    sweep("run", "sweep.yaml", "--devices", ",".join(["cpu"] * len(os.sched_getaffinity(0))), cwd=folder)
    return folder


def test_jobs_outlive_their_runner_and_are_taken_up_by_the_next(local, cluster):
    write(Path())
    out, _ = sweep("run", "sweep.yaml", *SLURM, "--no-wait", "--max-parallel", "2")
    assert "submitted: `saelight sweep status runs/tiny`" in out
    assert "#SBATCH --array=0-2%2" in Path("runs/tiny/slurm/array-1.sh").read_text()
    _, err = sweep("run", "sweep.yaml", *SLURM, code=1)
    assert err == "saelight: error: runs/tiny was begun (3 of 3 groups): go on with --resume, or give --out another folder\n"
    out, _ = sweep("status", "runs/tiny")
    assert re.search(r"3 SAEs: .*waiting", out)

    runner = start("run", "sweep.yaml", *SLURM, "--resume")
    wait_until(lambda: len(events()) == 6)
    runner.kill()
    runner.communicate()

    runner = start("run", "sweep.yaml", *SLURM, "--resume")
    wait_until(lambda: len(events()) == 9 and step(GROUPS[0]) and step(GROUPS[1]))
    assert len(jobs()) == 3
    runner.send_signal(signal.SIGINT)
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 130, out + err
    assert out.endswith("stopped; the same command with --resume goes on\n")
    # What ran has saved, what waited was taken back.
    assert [run_folder.checkpoint(FOLDER / "runs" / group).is_file() for group in GROUPS] == [True, True, False]
    assert queued(cluster) == ""

    sweep("run", "sweep.yaml", *SLURM, "--resume")
    assert len(jobs()) == 6
    for group in GROUPS:
        assert (FOLDER / "logs" / f"{group}.txt").read_text().count("the SAEs are in ") == 1
    assert_as_on_this_machine(local)


def test_jobs_that_are_told_preempted_or_requeued_go_on_exactly(local, cluster):
    write(Path())
    runner = start("run", "sweep.yaml", *SLURM)
    wait_until(lambda: step(GROUPS[0]) > 0)
    told, preempted, requeued = sorted(jobs())
    cluster("scancel", "--signal=USR1", told)
    wait_until(lambda: step(GROUPS[1]) > 0)
    node = cluster("squeue", "--noheader", f"--jobs={preempted}", "--format=%N")
    cluster("sbatch", "--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 1")
    wait_until(lambda: step(GROUPS[2]) > 0)
    cluster("scontrol", "requeue", requeued)
    out, err = runner.communicate(timeout=200)
    assert runner.returncode == 0, out + err
    assert "failed" not in out
    logs = [(FOLDER / "logs" / f"{group}.txt").read_text() for group in GROUPS]
    for log, job in zip(logs, (told, preempted, requeued), strict=True):
        assert re.search(r"Stopped after step \d+", log)
        assert "Restored all states" in log
        # Once: neither forgotten nor asked for again by a job that Slurm had requeued already.
        assert " Restarts=1 " in cluster("scontrol", "show", "job", job)
    assert ["goes back to the queue" in log for log in logs] == [True, True, False]
    assert_as_on_this_machine(local)


def test_a_job_that_failed_says_why_though_no_runner_waited(cluster):
    write(Path(), LONG | {"trainer": LONG["trainer"] | {"precision": "16-mixed"}})
    sweep("run", "sweep.yaml", *SLURM, "--limit", "1", "--no-wait")
    wait_until(lambda: not queued(cluster))
    out, _ = sweep("status", "runs/tiny")
    assert "1 SAEs: 1 failed" in out
    assert "group-000 failed: trainer.precision 16-mixed is not for a bank" in out


def test_what_slurm_refuses_is_one_line_and_nothing_is_begun(cluster):
    write(Path())
    _, err = sweep("run", "sweep.yaml", "--launcher", "slurm", "--partition", "nowhere", "--gpus", "0", code=1)
    assert re.fullmatch(r"saelight: error: sbatch refused .*\(.*nvalid partition .*\): change --partition, .*\n", err)
    assert not Path("runs/tiny/state.jsonl").exists()
