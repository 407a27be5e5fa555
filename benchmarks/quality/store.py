"""Results kept as a small JSON file each, by what decides them: what is there is not trained again."""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.quality import behaviour
from benchmarks.quality.runs import OURS, Measured, Result, Run
from saelight.files import write_text

DISTRIBUTIONS = {
    OURS: ("saelight", "torch", "lightning"),
    "sae_lens": ("sae-lens", "torch"),
    "dictionary_learning": ("dictionary-learning", "torch"),
    "sparsify": ("eai-sparsify", "schedulefree", "torch"),
}
"""What is installed decides what is learnt, by library."""


@cache
def versions(library: str) -> dict[str, str]:
    """What is installed; nothing where the library is not."""
    try:
        return {name: version(name) for name in DISTRIBUTIONS[library]}
    except PackageNotFoundError:
        return {}


def decided_by(run: Run) -> dict[str, str]:
    """What decides a run's results: what is installed, and how it learns.

    A peer learns as the code says that binds it here. saelight's own code changes daily and mostly without a consequence: it
    learns as it does on a small set of rows.
    """
    if run.library == OURS:
        return versions(OURS) | {"learns": behaviour.digest(run)}
    return versions(run.library) | {"code": _digest([Path(peers.__file__).with_name(f"{run.library}.py")])}


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
            if entry["versions"] == decided_by(result.run):
                self.results[result.run] = result

    def put(self, results: Iterable[Result]) -> None:
        """Keep them, whole or not at all."""
        for result in results:
            entry = {"versions": decided_by(result.run), "result": asdict(result)}
            write_text(self.folder / f"{_name(result.run)}.json", json.dumps(entry, indent=1) + "\n")
            self.results[result.run] = result


def _result(entry: dict[str, Any]) -> Result:
    measured = {name: Measured(**entry[name]) for name in ("held_out", "out_of_distribution")}
    return Result(**entry | measured | {"run": Run(**entry["run"])})


def _name(run: Run) -> str:
    key = json.dumps([asdict(run), decided_by(run)], sort_keys=True)
    return f"{run.data}-{run.library}-{run.variant}-{run.l0}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
