"""Sweeps trained by the real `wandb sweep` and `wandb agent`, whose server is on the loopback."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from saelight.run import run_folder
from saelight.sweep.wandb.logger_settings import with_wandb
from tests.support.commands import CONFIG, saelight_
from tests.sweep.wandb_server import serving

BASE = copy.deepcopy(CONFIG) | {"model": {}}
LOGGER = {"class_path": "saelight.loggers.PerSAE", "init_args": {"to": ["csv"], "wandb": {"project": "tiny"}}}
BASE["trainer"]["logger"] = LOGGER
PLAIN = {
    "base": "base.yaml",
    "method": "grid",
    "sae": {"class_path": "TopK", "k": 4, "expansion": 2},
    "parameters": {
        "sae.lr": {"values": [1e-3, 1e-5]},
        "sae.betas": {"value": [0.8, 0.99]},
        "sae.clip": {"value": None},
        "sae.schedule": {"value": {"kind": "constant"}},
    },
}
CASES = {
    "base": "base.yaml",
    "sae": {"expansion": 2},
    "max_saes": 2,
    "cases": [
        {"name": "relu", "parameters": {"sae.class_path": {"value": "ReLU"}, "sae.lr": {"values": [1e-3, 1e-4]}}},
        {"name": "topk", "parameters": {"sae.class_path": {"value": "TopK"}, "sae.k": {"values": [2, 4]}}},
    ],
}


@pytest.fixture(autouse=True)
def bases():
    """The configs that the sweeps build on."""
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    without = {"class_path": "ActivationDataModule", "init_args": {"path": "nowhere", "batch_size": 100}}
    Path("without.yaml").write_text(yaml.safe_dump(BASE | {"data": without}))


@pytest.fixture
def server():
    with serving() as server:
        yield server


def wandb(server, *args):
    """A command of the real client, begun."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    env = clean | {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": "k" * 40,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "wandb", *args],
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


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


@pytest.mark.slow
def test_a_plain_grid_is_wandbs_own(server):
    # Training ends between two validations: what W&B chooses by is that of the final weights.
    sweep = exported(server, PLAIN, "--set", "trainer.max_steps=7")
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


@pytest.mark.slow
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


def until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def events():
    return [json.loads(line) for line in Path("out/state.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_way_to_stop_leaves_a_checkpoint_from_which_the_run_comes_back(server):
    sweep = exported(server, PLAIN | {"parameters": {"sae.lr": {"value": 1e-3}}}, "--set", "trainer.max_epochs=100000")
    folder = Path("out/runs/group-000")

    def step():
        file = folder / "progress.json"
        return json.loads(file.read_text()).get("step", 0) if file.is_file() else 0

    running = wandb(server, "agent", sweep)
    until(lambda: step() > 0)
    running.kill()  # of all ways the one that tells nobody
    running.communicate()
    until(run_folder.checkpoint(folder).is_file)
    until(lambda: events()[-1]["event"] == "interrupted")
    before = step()
    [run] = server.runs.values()
    server.sweeps[run["sweep"]]["again"].append(run["name"])
    running = wandb(server, "agent", sweep)
    until(lambda: step() > before)
    with server.lock:
        run["stop"] = True
    said = output(running)
    assert [event["event"] for event in events()] == ["submitted", "interrupted"] * 2, said
    assert list(json.loads((folder / "logs" / "runs.json").read_text()).values()) == [run["name"]]
    assert list(server.runs) == [run["name"]]
    assert not Path("out/runs/group-001").exists()


# --- the file, without anyone who reads it


def export(capsys, sweep, *args, name="my.yaml"):
    """What `export-wandb` says, and the file it writes."""
    Path(name).write_text(sweep if isinstance(sweep, str) else yaml.safe_dump(sweep))
    code = saelight_("sweep", "export-wandb", name, "--out", "out", *args)
    said = capsys.readouterr()
    return (said.out, yaml.safe_load(Path("out/wandb.yaml").read_text())) if code == 0 else (said.err, None)


def test_a_search_goes_over_as_it_is(capsys):
    search = PLAIN | {
        "name": "search",
        "method": "bayes",
        "run_cap": 20,
        "early_terminate": {"type": "hyperband", "min_iter": 3},
        "entity": "me",
        "parameters": {
            "sae.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2},
            "sae.clip": {"min": 1, "max": 2.5},
            "sae": {"parameters": {"k": {"min": 1, "max": 4}}},
        },
    }
    _, written = export(capsys, search, "--set", "data.batch_size=50")
    assert written.pop("command")[2:] == ["-m", "saelight.sweep.wandb.agent", "out", "${args_json_file}"]
    parameters = written.pop("parameters")
    assert parameters.pop("sae.lr") == search["parameters"]["sae.lr"]
    # wandb refuses one whole bound beside one with a fraction, unless told what is between them.
    assert parameters.pop("sae.clip") == {"min": 1, "max": 2.5, "distribution": "uniform"}
    assert parameters == {"sae.k": {"min": 1, "max": 4, "distribution": "int_uniform"}, "data.batch_size": {"value": 50}}
    kept = {key: search[key] for key in ("name", "method", "run_cap", "early_terminate", "entity")}
    assert written == kept | {"project": "tiny", "metric": {"name": "val/fvu", "goal": "minimize"}}


def test_what_wandb_cannot_say_goes_over_as_groups(capsys):
    python = """base = "base.yaml"
def make_cfgs():
    return [{"sae": {"class_path": "TopK", "k": k, "expansion": 2}} for k in (1, 2, 3)]"""
    zipped = {"base": "base.yaml", "sae": {"class_path": "TopK"}, "zip": [{"sae.k": [1, 2, 3], "sae.expansion": [2, 3, 4]}]}
    for sweep, name, args in ((python, "my.py", []), (zipped, "my.yaml", []), (PLAIN, "my.yaml", ["--limit", "1"])):
        said, written = export(capsys, sweep, "--max-saes", "2", *args, name=name)
        n = 1 if args else 2
        assert written["parameters"] == {"group": {"values": [f"group-{i:03d}" for i in range(n)]}}
        assert written["method"] == "grid"
        assert "wandb agent ENTITY/tiny/ID" in said


REFUSED = {
    "bayes over cases": (CASES | {"method": "bayes"}, [], "W&B's bayes knows neither cases"),
    "bayes on shared batches": (PLAIN | {"method": "bayes"}, ["--max-saes", "2"], "W&B's bayes knows neither --max-saes"),
    "a value that no point can have": (PLAIN | {"parameters": {"sae.k": {"values": [4, 99]}}}, [], "k = 99 exceeds d_sae"),
    "an unknown override": (PLAIN, ["--set", "sea.k=2"], "did you mean 'sae'"),
    "no data yet": (CASES | {"base": "without.yaml"}, [], "nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_said_in_one_line(case, capsys):
    sweep, args, message = REFUSED[case]
    said, written = export(capsys, sweep, *args)
    assert written is None
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not Path("out/wandb.yaml").exists()


def test_an_agent_says_what_is_wrong(capsys):
    export(capsys, CASES)
    Path("args.json").write_text('{"group": "group-007"}')
    for folder, message in (("out", "out has no group-007 any more"), ("elsewhere", "elsewhere is no sweep's folder")):
        command = [sys.executable, "-m", "saelight.sweep.wandb.agent", folder, "args.json"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert re.fullmatch(f"saelight: error: {message}.*\n", done.stderr)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"class_path": "saelight.loggers.PerSAE", "init_args": {"wandb": {}}}),
        (LOGGER, LOGGER),
        (
            {"class_path": "PerSAE", "init_args": {"wandb": {"offline": True, "tags": ["a"]}}},
            {"class_path": "PerSAE", "init_args": {"wandb": {"tags": ["a"]}}},
        ),
        ("PerSAE", {"class_path": "PerSAE", "init_args": {"wandb": {}}}),
        ({"class_path": "PerSAE", "init_args": {"to": ["wandb"]}}, {"class_path": "PerSAE", "init_args": {"to": ["wandb"]}}),
        (["CSVLogger", LOGGER], [{"class_path": "CSVLogger", "init_args": {}}, LOGGER]),
        (False, {"class_path": "saelight.loggers.PerSAE", "init_args": {"to": ["wandb"]}}),
    ],
)
def test_wandb_joins_the_logger_that_is_there(before, after):
    assert with_wandb(before) == after
