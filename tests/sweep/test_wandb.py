"""Sweeps trained by the real `wandb sweep` and `wandb agent`, whose server is on the loopback."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import saelight
from saelight import runs
from tests.sweep.wandb_server import serving
from tests.test_cli import CONFIG, saelight_

BASE = copy.deepcopy(CONFIG) | {"model": {}}
LOGGER = {"class_path": "saelight.loggers.PerSAE", "init_args": {"to": ["csv"], "wandb": {"project": "tiny"}}}
BASE["trainer"]["logger"] = LOGGER
PLAIN = {
    "base": "base.yaml",
    "method": "grid",
    "sae": {"class_path": "TopK", "k": 4, "expansion": 2},
    "parameters": {"sae.lr": {"values": [1e-3, 1e-5]}, "sae.betas": {"value": [0.8, 0.99]}, "sae.clip": {"value": None},
                   "sae.schedule": {"value": {"kind": "constant"}}},
}  # fmt: skip
CASES = {
    "base": "base.yaml",
    "sae": {"expansion": 2},
    "max_saes": 2,
    "cases": [{"name": "relu", "parameters": {"sae.class_path": {"value": "ReLU"}, "sae.lr": {"values": [1e-3, 1e-4]}}},
              {"name": "topk", "parameters": {"sae.class_path": {"value": "TopK"}, "sae.k": {"values": [2, 4]}}}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty folder but for the base."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))


@pytest.fixture
def server():
    with serving() as server:
        yield server


def wandb(server, *args):
    """A command of the real client, begun."""
    home = str(Path(saelight.__file__).parents[1])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    env = clean | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "OMP_NUM_THREADS": "1",
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": home}  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "wandb", *args], env=env, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def output(process):
    """All that a command said; it succeeds."""
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    return text


def exported(server, sweep, *args):
    """Export a sweep and make W&B's of it; what `wandb agent` is to be called with."""
    Path("my.yaml").write_text(yaml.safe_dump(sweep))
    assert saelight_("sweep", "export-wandb", "my.yaml", "--out", "out", *args) == 0
    said = output(wandb(server, "sweep", "out/wandb.yaml"))
    return re.search(r"wandb agent (\S+)", said)[1]


def config(run, key):
    return run["config"][key]["value"]


def test_a_plain_grid_is_wandbs_own(server, capsys):
    sweep = exported(server, PLAIN)
    output(wandb(server, "agent", sweep))
    assert len(server.runs) == 2, "a run per point"
    for run in server.runs.values():
        assert run["exit"][-1] == 0
        assert run["project"] == "tiny"
        assert run["rows"] > 0
        assert 0 < run["summary"]["val/fvu"] < 10
        spec = config(run, "init_args")
        assert spec["lr"] == config(run, "sae.lr")
        assert (spec["betas"], spec["clip"], spec["schedule"]["kind"], spec["k"]) == ([0.8, 0.99], None, "constant", 4)
    assert {config(run, "sae.lr") for run in server.runs.values()} == {1e-3, 1e-5}
    assert saelight_("sweep", "results", "out") == 0
    rows = {row["name"]: row for row in json.loads(Path("out/results.json").read_text())}
    assert sorted(rows) == ["lr0.001", "lr1e-05"]
    for run in server.runs.values():
        row = rows[run["display"]]
        assert row["state"] == "finished"
        assert row["metrics"]["fvu"] == pytest.approx(run["summary"]["val/fvu"])
        assert Path(row["folder"]).parent.parent.joinpath("logs", row["name"], "metrics.csv").is_file(), "the base's logger"


def test_two_agents_train_each_group_once(server):
    sweep = exported(server, CASES)
    agents = [wandb(server, "agent", sweep) for _ in range(2)]
    said = [output(agent) for agent in agents]
    owners = {name: run for name, run in server.runs.items() if "agent" in run}
    assert sorted(config(run, "group") for run in owners.values()) == ["group-000", "group-001"], said
    assert len({run["agent"] for run in owners.values()}) == 2
    index = json.loads(Path("out/index.json").read_text())
    for name, owner in owners.items():
        names = [index["entries"][key]["name"] for key in index["groups"][config(owner, "group")]["members"]]
        sibling = server.runs[f"{name}-k1"]
        assert [owner["display"], sibling["display"]] == names
        assert (owner["group"], sibling["group"]) == (name, name)
        assert "sweep" not in sibling
        for run in (owner, sibling):
            assert run["exit"][-1] == 0
            assert 0 < run["summary"]["val/fvu"] < 10
    assert len(server.runs) == 4
    assert saelight_("sweep", "results", "out") == 0
    assert {row["state"] for row in json.loads(Path("out/results.json").read_text())} == {"finished"}
    assert saelight_("sweep", "export-wandb", "out") == 1, "nothing is left to train"


def test_a_run_that_wandb_stops_leaves_its_checkpoint(server):
    sweep = exported(server, PLAIN | {"parameters": {"sae.lr": {"value": 1e-3}}}, "--set", "trainer.max_epochs=100000")
    agent = wandb(server, "agent", sweep)
    progress = Path("out/runs/group-000/progress.json")
    deadline = time.monotonic() + 60
    while not (progress.is_file() and json.loads(progress.read_text()).get("step")) and time.monotonic() < deadline:
        time.sleep(0.1)
    with server.lock:
        [run] = server.runs.values()
        run["stop"] = True
    said = output(agent)
    assert runs.checkpoint(progress.parent).is_file(), said
    last = json.loads(Path("out/state.jsonl").read_text().splitlines()[-1])
    assert (last["group"], last["event"]) == ("group-000", "interrupted")


def test_a_stopped_agent_leaves_a_checkpoint_and_its_run_comes_back(server):
    sweep = exported(server, PLAIN | {"parameters": {"sae.lr": {"value": 1e-3}}}, "--set", "trainer.max_epochs=100000")
    agent = wandb(server, "agent", sweep)
    progress = Path("out/runs/group-000/progress.json")
    deadline = time.monotonic() + 60
    while not (progress.is_file() and json.loads(progress.read_text()).get("step")) and time.monotonic() < deadline:
        time.sleep(0.1)
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    while not runs.checkpoint(progress.parent).is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs.checkpoint(progress.parent).is_file()
