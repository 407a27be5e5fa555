"""A 48-point sweep of small SAEs: grouped, grouped and killed twice, and one by one. `python -m benchmarks.grouped`

Prints the three times, and whether all weights and metrics are equal.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from saelight.parsing import yaml_files

BASE = {
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "saelight.callbacks.SaveCheckpoint", "init_args": {"minutes": 0.05}}],
    },
    "model": {"saes": {"any": {"class_path": "TopK"}}},
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"d_in": 64, "n_features": 128, "mean_l0": 4, "rows": 100_000, "batch_size": 256},
    },
}
SWEEP = {
    "name": "grouped",
    "base": "base.yaml",
    "parameters": {"sae.lr": {"values": [1e-3, 3e-3, 1e-2]}, "sae.expansion": {"values": [2, 4]}},
    "cases": [
        {"name": "topk", "parameters": {"sae.class_path": {"value": "TopK"}, "sae.k": {"values": [2, 4, 8, 16]}}},
        {
            "name": "relu",
            "parameters": {"sae.class_path": {"value": "ReLU"}, "sae.sparsity": {"values": [0.05, 0.1, 0.2, 0.4]}},
        },
    ],
}


def start(out: str, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "saelight", "sweep", "run", "sweep.yaml", "--devices", "cpu,cpu", "--out", out, *args]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def timed(out: str, *args: str) -> float:
    began = time.perf_counter()
    if start(out, *args).wait() != 0:
        raise SystemExit(f"the sweep into {out} failed")
    return time.perf_counter() - began


def results(out: str) -> dict[str, dict]:
    return {row["name"]: row["metrics"] for row in json.loads(Path(out, "results.json").read_text())}


def weights(out: str) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in Path(out, "runs").rglob("sae.safetensors")}


def steps(out: str) -> list[int]:
    return [json.loads(path.read_text())["step"] for path in Path(out).glob("runs/*/progress.json")]


def killed(out: str) -> list[list[int]]:
    """Kill the runner at a quarter, then a child and the resumed one at two thirds; the steps the groups had come to."""
    where = []
    for again, step in (([], 100), (["--resume"], 250)):
        runner = start(out, *again)
        while len(steps(out)) < 2 or min(steps(out)) < step:
            time.sleep(0.05)
        where.append(steps(out))
        if again:
            event = json.loads(Path(out, "state.jsonl").read_text().splitlines()[-1])
            os.kill(event["pid"], signal.SIGKILL)
        runner.kill()
        runner.wait()
    return where


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        os.chdir(folder)
        Path("base.yaml").write_text(yaml_files.dump(BASE))
        Path("sweep.yaml").write_text(yaml_files.dump(SWEEP))
        grouped = timed("grouped")
        print(f"grouped, two groups of 24 on two devices: {grouped:.0f} s", flush=True)
        for i, where in enumerate(killed("killed"), 1):
            print(f"kill {i}: groups at steps {where}", flush=True)
        print(f"the rest of it, resumed: {timed('killed', '--resume'):.0f} s", flush=True)
        alone = timed("alone", "--max-saes", "1")
        print(f"one by one, two at a time: {alone:.0f} s, {alone / grouped:.1f} times as long", flush=True)
        for other in ("killed", "alone"):
            same = weights(other) == weights("grouped") and results(other) == results("grouped")
            print(f"{other}: {len(weights(other))} SAEs, weights and metrics {'equal' if same else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
