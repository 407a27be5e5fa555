"""The command line on the device: what a user does first."""

import subprocess
import sys
import time
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.training import Bench


def run(bench: Bench) -> None:
    bench.results.put("machine", "python", sys.version.split()[0])
    bench.results.put("machine", "torch", torch.__version__)
    bench.results.put("machine", "device", torch.cuda.get_device_name() if bench.cuda else "cpu")
    quickstart = bench.checkout / "configs" / "quickstart.yaml"
    # What there is on the CPU is known to work: a rehearsal is about the commands themselves.
    rows, val_rows = ("100000", "16384") if bench.cuda else ("2048", "512")
    accelerator = f"--trainer.accelerator={'gpu' if bench.cuda else 'cpu'}"
    common = (f"--config={quickstart}", accelerator, f"--data.rows={rows}", f"--data.val_rows={val_rows}")
    commands = {
        "devices": ("devices",),
        "quickstart": ("fit", *common, "--trainer.name=full"),
        "quickstart bf16-mixed": ("fit", *common, "--trainer.name=mixed", "--trainer.precision=bf16-mixed"),
        "validate": ("validate", *common, "--trainer.name=full"),
        "predict": ("predict", *common, "--trainer.name=full", "--data.predict_rows=1000"),
        "sweep": ("sweep", "run", str(bench.checkout / "sweeps" / "quick.yaml"), "--limit", "2", "--dry-run"),
    }
    for name, words in commands.items():
        bench.results.measure("commands", name, partial(_call, bench, *words), needs=15)


def _call(bench: Bench, *words: str) -> dict[str, Any]:
    """Seconds of a command, and the end of what it printed. Raises RuntimeError with all of it when it fails."""
    start = time.monotonic()
    command = [sys.executable, "-m", "saelight", *words]
    done = subprocess.run(command, cwd=bench.scratch, capture_output=True, text=True, timeout=bench.results.left)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return {"s": round(time.monotonic() - start, 1), "printed": done.stdout.strip()[-1500:]}
