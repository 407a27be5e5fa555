"""Mutated sweep files and damaged sweep folders: each is taken, or refused in one line; never a traceback, never a trace."""

import copy
import json
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from saelight.cli.main import main
from tests.support.sweeps import SWEEP, write

JUNK: list[Any] = [None, True, -1, 0, 2**70, 1e308, float("nan"), float("inf"), "", "x", "../../esc", "a" * 300, [], [[]]]
JUNK += [{}, {"a": {"b": None}}, [1, "x", None], {"value": []}, {"values": {}}, {"min": 2, "max": 1}, {1: 2}, "\0", "é\n"]
RANDOM = SWEEP | {
    "method": "random",
    "run_cap": 3,
    "metric": {"name": "val/fvu", "goal": "minimize"},
    "early_terminate": {"type": "halving", "rungs": [0.5], "keep": 0.5},
    "parameters": {
        "sae.lr": {"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1e-2},
        "sae.expansion": {"values": [1, 2], "probabilities": [0.2, 0.8]},
    },
    "zip": [{"name": ["a", "b"], "sae.seed": [1, 2]}],
}
SEARCH = RANDOM | {"method": "bayes", "max_saes": 2, "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3}}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def mutated(content: Any, dice: random.Random) -> Any:
    """A copy with one thing wrong: a value replaced, dropped, doubled, or a key misspelt."""
    content = copy.deepcopy(content)
    *path, last = dice.choice(list(places(content)))
    parent = content
    for key in path:
        parent = parent[key]
    kind = dice.choice(["replace", "replace", "replace", "drop", "misspell", "wrap"])
    if kind == "replace":
        parent[last] = dice.choice(JUNK)
    elif kind == "drop":
        del parent[last]
    elif kind == "wrap":
        parent[last] = [parent[last]] if dice.random() < 0.5 else {"value": parent[last]}
    elif isinstance(parent, dict):
        parent[f"{last}s"] = parent.pop(last)
    return content


def torn(text: str, dice: random.Random) -> str:
    """The text with some of it lost or turned into something else."""
    at = dice.randrange(len(text))
    return text[:at] + dice.choice(["", "\t", "}", "[", "&a ", "\0", ": :", '"']) + text[at + dice.randrange(9) :]


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What came of a command: taken, refused in one line, or what should not be."""
    try:
        code = main(args)
    except SystemExit as stop:
        code = stop.code
    except Exception:
        return "traceback: " + traceback.format_exc(limit=-3)
    captured = capsys.readouterr()
    if code == 0:
        return "taken"
    lines = captured.err.strip().splitlines()
    if len(lines) != 1 or not lines[0].startswith("saelight: error: ") or len(lines[0]) > 1500:
        return f"said {captured.err[:2000]!r}"
    return "refused"


def counted(found: dict[str, str]) -> None:
    """Print the figures, and fail for whatever is neither taken nor refused."""
    counts = Counter(value.partition(":")[0] for value in found.values())
    print(", ".join(f"{n} {what}" for what, n in counts.most_common()))
    assert [f"{key}\n{value}" for key, value in found.items() if value not in ("taken", "refused")] == []


@pytest.mark.slow
def test_mutated_sweep_files(capsys):
    dice, found = random.Random(12), {}
    for i in range(300):
        content = mutated(dice.choice([SWEEP, RANDOM, SEARCH]), dice)
        if dice.random() < 0.3:
            content = mutated(content, dice)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        text = torn(text, dice) if i % 5 == 0 else text
        Path("base.yaml").unlink(missing_ok=True)
        file = write(text)
        found[f"{i}: {text}"] = outcome(capsys, "sweep", "expand", file, "--out", "s")
        left = {path.name for path in Path().iterdir()} - {"base.yaml", "sweep.yaml"}
        assert left == ({"s"} if found[f"{i}: {text}"] == "taken" else set()), text
        shutil.rmtree("s", ignore_errors=True)
    with capsys.disabled():
        print("\n300 mutated sweep files: ", end="")
        counted(found)


@pytest.mark.slow
def test_damaged_sweep_folders(capsys):
    dice, found = random.Random(12), {}
    assert main(["sweep", "expand", write(), "--out", "good", "--devices", "cpu"]) == 0
    good = Path("good")
    (good / "state.jsonl").write_text('{"time": 1, "group": "group-000", "event": "failed", "error": "x"}\n')
    run = good / "runs" / "group-000"
    run.mkdir(parents=True)
    saes = {name: {"state": "running", "reason": None, "val": {"fvu": 0.5}} for name in ("topk-lr0.001-k2",)}
    (run / "progress.json").write_text(json.dumps({"step": 3, "steps": 9, "tokens": 5, "seconds": 2.0, "saes": saes}))
    files = [
        "index.json",
        "index.json",
        "index.json",
        "state.jsonl",
        "runs/group-000/progress.json",
        "groups/group-000.yaml",
    ]
    for i in range(200):
        shutil.rmtree("bad", ignore_errors=True)
        shutil.copytree(good, "bad")
        path = Path("bad", dice.choice(files))
        text = path.read_text()
        if i % 3 == 0:
            path.write_text(torn(text, dice))
        else:
            content = yaml.safe_load(text)
            path.write_text(json.dumps(mutated(content, dice)) + "\n")
        before = set(Path("..").iterdir())
        for command in (["status", "bad"], ["results", "bad"], ["expand", "sweep.yaml", "--out", "bad"]):
            found[f"{i} {path} {command[0]}: {path.read_text()[:3000]}"] = outcome(capsys, "sweep", *command)
        assert set(Path("..").iterdir()) == before
    with capsys.disabled():
        print("\n200 damaged sweep folders, three commands each: ", end="")
        counted(found)
