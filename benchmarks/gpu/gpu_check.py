"""Whether saelight runs on this GPU, is right and exact there, how fast, and where a step's time goes. Some eight minutes.

    python benchmarks/gpu/gpu_check.py --checkout . --out OUT [--budget 480] [--only dense,sparse]
    python benchmarks/gpu/gpu_check.py --rehearse --out OUT     # small, on the CPU: that all of it still fits saelight

Every part (parts.py) is a process of its own, so that a kernel that faults ends no other, and is ended when its time is up.
What it measured until then counts. OUT gets gpu_check.json with everything, gpu_check.md to read, and log.txt; torch's
profiler adds profile.txt. This file alone needs nothing but Python: the parts run from the checkout.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A process: what it measures, and for how long at most."""

    name: str
    seconds: float
    environment: dict[str, str] = {}  # noqa: RUF012, never written to


TRITON = {"SAELIGHT_TRITON": "1"}
# cuBLAS asks for this once, before the first product.
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
STAGES = [
    # Right or wrong: side by side, since nothing is timed.
    [
        Part("cli", 110),
        Part("kernels", 100, TRITON),
        Part("exact", 110),
        Part("exact_deterministic", 110, DETERMINISTIC),
        Part("exact_sparse", 110, TRITON),
        Part("exact_sparse_deterministic", 110, TRITON | DETERMINISTIC),
    ],
    # How fast: one after the other, the most wanted first.
    [Part("dense", 75)],
    [Part("sparse", 55, TRITON)],
    [Part("profile", 35)],
    [Part("profile_sparse", 30, TRITON)],
    [Part("operations", 35)],
    [Part("peers", 60)],
    [Part("stream", 40)],
]
MISSING = "ModuleNotFoundError: No module named "
LEAST = 10.0
"""Seconds below which a part is not begun: importing torch and Lightning takes most of that."""


class Check:
    """All parts, one stage after the other, within a budget of seconds; their results in `out`."""

    def __init__(self, checkout: Path, out: Path, budget: float, rehearse: bool) -> None:
        self.checkout, self.out, self.budget, self.rehearse = checkout.resolve(), out, budget, rehearse
        self.started = time.monotonic()
        self.state: dict[str, str] = {}
        """By part: how it ended, or that it was left out."""
        self.missing: str | None = None
        """A module that a part could not import, after which no other would come further."""
        self.work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        out.mkdir(parents=True, exist_ok=True)

    def run(self, only: set[str]) -> bool:
        """Run the parts; whether each came to its end."""
        with (self.out / "log.txt").open("w") as log:
            for stage in STAGES:
                self._run_stage([part for part in stage if not only or part.name in only], log)
                if self.missing:
                    print(_advice(self.missing), flush=True)
                    break
        self.write()
        shutil.rmtree(self.work, ignore_errors=True)
        return set(self.state.values()) == {"ended"}

    def _run_stage(self, parts: list[Part], log: Any) -> None:
        running = {}
        for part in parts:
            # A rehearsal is about what runs, on whatever machine.
            seconds = min(part.seconds * (6 if self.rehearse else 1), self.budget - (time.monotonic() - self.started))
            if seconds < LEAST:
                self.state[part.name] = "left out: no time"
                continue
            self._say(f"{part.name}, at most {seconds:.0f} s")
            running[part.name] = self._start(part, seconds), time.monotonic() + seconds
        while running:
            time.sleep(0.1)
            for name, (process, deadline) in list(running.items()):
                # A part ends itself in time, but not out of a kernel that hangs.
                late = time.monotonic() > deadline + 3
                if late:
                    process.kill()
                if late or process.poll() is not None:
                    code = process.wait()
                    self.state[name] = "killed: out of time" if late else f"failed: exit code {code}" if code else "ended"
                    text = (self.work / f"{name}.log").read_text(errors="replace")
                    log.write(f"===== {name}: {self.state[name]}\n{text[-20_000:]}\n")
                    log.flush()
                    last = text.strip().rpartition("\n")[2]
                    if code and last.startswith(MISSING):
                        self.state[name], self.missing = f"failed: {last}", last.removeprefix(MISSING).strip("'")
                    elif code:
                        self._say(f"{name} {self.state[name]}\n{text[-700:]}")
                    del running[name]
                    self.write()

    def _start(self, part: Part, seconds: float) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key != "SAELIGHT_TRITON"}
        environment |= {
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TRITON_CACHE_DIR": str(self.work / "triton"),
        }
        path = [str(self.checkout), environment.get("PYTHONPATH", "")]
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, path))} | part.environment
        if self.rehearse:
            environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.gpu.parts", part.name, f"--seconds={seconds}", f"--work={self.work}"]
        command += [f"--checkout={self.checkout}", *["--rehearse"] * self.rehearse]
        with (self.work / f"{part.name}.log").open("w") as log:
            return subprocess.Popen(command, env=environment, cwd=self.work, stdout=log, stderr=log)

    def write(self) -> None:
        """What there is until now, into `out`."""
        results = {}
        for stage in STAGES:
            for part in stage:
                with contextlib.suppress(FileNotFoundError):
                    results[part.name] = json.loads((self.work / f"{part.name}.json").read_text())
        seconds = round(time.monotonic() - self.started, 1)
        everything = {"seconds": seconds, "rehearsal": self.rehearse, "state": self.state, "results": results}
        (self.out / "gpu_check.json").write_text(json.dumps(everything, indent=1))
        (self.out / "gpu_check.md").write_text(markdown(everything))
        for tables in self.work.glob("profile*.txt"):
            shutil.copy(tables, self.out)

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", flush=True)


def _advice(module: str) -> str:
    package = module.partition(".")[0]
    download = f"pip download --only-binary=:all: --python-version 3.{sys.version_info.minor} -d .whl {package}"
    return f"no module {module!r} on this machine: carry its wheel along, and those it asks for ({download})"


def markdown(everything: dict[str, Any]) -> str:
    """The results as a page: a heading for each part's table, a line for each row."""
    state = ", ".join(f"{name} {how}" for name, how in everything["state"].items())
    lines = [f"# GPU check{' (rehearsal on a CPU)' * everything['rehearsal']}: {everything['seconds']} s", "", state]
    for part, tables in everything["results"].items():
        for title, rows in tables.items():
            lines += ["", f"## {part}: {title}", ""]
            lines += [f"- **{name}**: {_words(value)}" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    # Of an error what it says, which stands last; all of it is in the JSON.
    return str(value).strip().rpartition("\n")[2][:200]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path(), help="the folder that holds saelight/ and benchmarks/")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu_check")))
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts")
    parser.add_argument("--only", default="", help="parts, by comma")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on the CPU")
    given = parser.parse_args(words)
    known = [part.name for stage in STAGES for part in stage]
    only = set(filter(None, given.only.split(",")))
    if only - set(known):
        parser.error(f"--only {','.join(sorted(only - set(known)))}: the parts are {', '.join(known)}")
    check = Check(given.checkout, given.out, given.budget, given.rehearse)
    ok = check.run(only)
    print((given.out / "gpu_check.md").read_text())
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
