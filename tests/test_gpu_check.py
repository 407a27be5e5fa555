"""The GPU check fits today's saelight: all of it runs, small and on the CPU, so that no GPU minute is lost to a move."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.results import Results
from benchmarks.gpu.training import Bench

ROOT = Path(__file__).parents[1]
# What is missing is the same code under another environment variable, and (cli) commands that other tests run.
REHEARSED = ("kernels", "exact", "exact_deterministic", "dense", "sparse", "profile", "operations", "peers", "stream")


@pytest.fixture
def ordinary_torch(monkeypatch):
    """Lightning's `deterministic` holds for the whole process, in torch and in the environment."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)


# The check shows no warnings: Lightning has many about loaders that lie in memory.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REHEARSED)
def test_a_part_runs_on_the_cpu(name, tmp_path, ordinary_torch):
    results = Results(tmp_path / f"{name}.json", seconds=300)
    scratch = tmp_path / name
    scratch.mkdir()
    PARTS[name](Bench(results, "cpu", ROOT, scratch))
    assert results.tables
    assert not results.tables.keys() & {"errors", "left out"}, results.tables
    assert json.loads(results.file.read_text()) == results.tables


@pytest.mark.slow
def test_the_whole_runs_from_a_folder_of_its_own_and_ends_within_its_budget(tmp_path):
    # As it travels to a GPU's machine: the scripts lie side by side in a folder, beside a checkout.
    scripts = tmp_path / "gpu"
    shutil.copytree(ROOT / "benchmarks" / "gpu", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, scripts / "gpu_check.py", "--rehearse", "--checkout", ROOT, "--out", tmp_path / "out"]

    def check(*more: str) -> tuple[subprocess.CompletedProcess, dict]:
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        return done, json.loads((tmp_path / "out" / "gpu_check.json").read_text())

    done, found = check("--only", "operations")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["state"] == {"operations": "ended"}
    assert found["results"]["operations"]["operations"]["topk of rows, bf16"]["ms"] > 0
    page = (tmp_path / "out" / "gpu_check.md").read_text()
    assert page.startswith("# GPU check (rehearsal on a CPU): ")
    assert "## operations: operations" in page
    done, found = check("--only", "dense,cli", "--budget", "5")
    assert done.returncode == 1
    assert found["state"] == {"cli": "left out: no time", "dense": "left out: no time"}
    done, _ = check("--only", "dance")
    assert "--only dance: the parts are cli, kernels, " in done.stderr


def test_a_module_that_is_not_there_is_said_once(tmp_path):
    # What the parts import first fails, as on a machine that lacks a package.
    package = tmp_path / "benchmarks" / "gpu"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "parts.py").write_text("import saelight_needs_this.inside")
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "gpu_check.py", "--rehearse", "--checkout", tmp_path]
    done = subprocess.run([*command, "--out", tmp_path / "out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("no module ")]
    assert line.startswith("no module 'saelight_needs_this' on this machine: carry its wheel along")
    state = json.loads((tmp_path / "out" / "gpu_check.json").read_text())["state"]
    assert state["cli"] == "failed: ModuleNotFoundError: No module named 'saelight_needs_this'"
    assert "dense" not in state
