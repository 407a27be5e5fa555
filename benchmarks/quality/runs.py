"""One SAE to train and what came of it, kept as a small JSON file each: what is there is not trained again."""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import saelight
from benchmarks import peers
from saelight.files import write_text

OURS = "saelight"
DISTRIBUTIONS = {
    OURS: ("saelight", "torch", "lightning"),
    "sae_lens": ("sae-lens", "torch"),
    "dictionary_learning": ("dictionary-learning", "torch"),
    "sparsify": ("eai-sparsify", "schedulefree", "torch"),
}
"""What is installed decides what is learnt, by library."""
_ROOMS = ("saes", "bank", "ops", "data", "schedules.py")
"""The parts of saelight that decide what an SAE learns."""


@dataclass(frozen=True)
class Run:
    """One SAE and the rows that it learns from."""

    data: str
    rows: str
    """Identity of the rows, training and held out."""
    library: str
    variant: str
    d_sae: int
    tokens: int
    batch: int
    l0: int
    """The target."""
    lr: float | None
    """None: the library's own choice."""
    coefficient: float | None
    """The penalty's weight, where it is tuned to reach the target."""
    seed: int


@dataclass(frozen=True)
class Measured:
    """An SAE on held-out rows."""

    fvu: float
    l0: float


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    run: Run
    held_out: Measured
    out_of_distribution: Measured
    never_fired: float
    """Share of the latents, over the rows held out."""
    seconds: float
    """Processor time of the training that made it, divided by the SAEs that shared it: other work beside it does not change
    it, and on one thread it is the wall time of a machine of its own."""
    together: int
    """SAEs that shared the training."""


@cache
def versions(library: str) -> dict[str, str]:
    """What decides a library's results: what is installed, and the code that trains; nothing where it is not installed."""
    try:
        found = {name: version(name) for name in DISTRIBUTIONS[library]}
    except PackageNotFoundError:
        return {}
    package = Path(saelight.__file__).parent
    if library == OURS:
        paths = [
            path for room in _ROOMS for path in sorted([package / room] if "." in room else package.glob(f"{room}/**/*.py"))
        ]
    else:
        paths = [Path(peers.__file__).with_name(f"{library}.py")]
    return found | {"code": _digest(paths)}


def _digest(paths: Iterable[Path]) -> str:
    """Changes with the code in these files, and not with what is said about it."""
    digest = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            # A docstring, also one of a field.
            if isinstance(body := getattr(node, "body", None), list):
                node.body = [
                    line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                ]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:8]


class Store:
    """The results in a folder, those of the installed versions alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[Run, Result] = {}
        for path in sorted(folder.glob("*.json")):
            entry = json.loads(path.read_text())
            result = _result(entry["result"])
            if entry["versions"] == versions(result.run.library):
                self.results[result.run] = result

    def put(self, results: Iterable[Result]) -> None:
        """Keep them, whole or not at all."""
        for result in results:
            entry = {"versions": versions(result.run.library), "result": asdict(result)}
            write_text(self.folder / f"{_name(result.run)}.json", json.dumps(entry, indent=1) + "\n")
            self.results[result.run] = result


def _result(entry: dict[str, Any]) -> Result:
    measured = {name: Measured(**entry[name]) for name in ("held_out", "out_of_distribution")}
    return Result(**entry | measured | {"run": Run(**entry["run"])})


def _name(run: Run) -> str:
    key = json.dumps([asdict(run), versions(run.library)], sort_keys=True)
    return f"{run.data}-{run.library}-{run.variant}-{run.l0}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
