"""Mutated configs, seeded: each trains, or is refused in one line. `make test-slow` prints how many did which."""

import contextlib
import copy
import dataclasses
import io
import math
import random
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from saelight.callbacks.declarations import DECLARED
from saelight.data.activation_source import ActivationSource
from saelight.data.synthetic_source import SyntheticSource
from saelight.parsing import yaml_files
from saelight.run.config_keys import BANK, TRAINER
from saelight.saes.plain_data import variants
from saelight.schedules import Schedule
from tests.support.commands import saelight_

MUTANTS, SEED, SECONDS = 500, 12, 120
ROOT = Path(__file__).parents[2]
SYNTHETIC = {
    "class_path": "SyntheticDataModule",
    "init_args": {"d_in": 8, "n_features": 16, "mean_l0": 2, "rows": 400, "val_rows": 100, "batch_size": 100},
}
SHORT = {"max_epochs": 1, "max_steps": 2, "limit_val_batches": 1, "accelerator": "cpu", "enable_progress_bar": False}
CLASSES = {kind.__name__: kind for kind in variants()} | DECLARED
CLASSES |= {"ActivationDataModule": ActivationSource, "SyntheticDataModule": SyntheticSource}
MINUS_ONE = {"max_epochs", "max_steps", "num_sanity_val_steps"}
"""Where -1 has a meaning."""
TEXTS = {
    "name",
    "root",
    "folder",
    "path",
    "val_path",
    "target_path",
    "init_from",
    "metric",
    "max_time",
    "val_check_interval",
}
ALONE = {"devices": {0, -1, 1}, "num_nodes": {0, -1, 1}}
"""More of these would start processes."""

NUMBERS = [0, 1, 2, 7, -1, -5, 2**31, 2**63, 2**70, 10**30, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-30, 1e30, 1e308]
OTHERS = [
    math.nan,
    math.inf,
    -math.inf,
    None,
    True,
    False,
    "",
    "x",
    "5",
    "1e-3",
    "nan",
    "größer",
    "x" * 5000,
    "a\0b",
    "../x",
]
NESTED = [[], [1], ["x"], [[1, 2]], {}, {"a": 1}, {"epochs": 0}, {"epochs": -1}, {"tokens": math.inf}, {"class_path": "x"}]


def bases() -> list[dict[str, Any]]:
    """The shipped configs, at a size of seconds."""
    found = []
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config = copy.deepcopy(yaml_files.read(path))
        if "trainer" not in config:
            continue
        config["trainer"] = {k: v for k, v in config["trainer"].items() if k != "accumulate_grad_batches"} | SHORT
        shards = {"class_path": "ActivationDataModule", "init_args": {"path": "shards", "batch_size": 100}}
        config["data"] = copy.deepcopy(shards if path.stem == "standard" else SYNTHETIC)
        saes = {sae["class_path"]: (name, sae) for name, sae in config["model"]["saes"].items()}
        config["model"]["saes"] = dict(saes.values())  # one of each class
        for sae in config["model"]["saes"].values():
            fields = sae["init_args"]
            fields |= {key: 4 for key in ("k", "target_l0") if key in fields}
            fields |= {"d_sae": 16} if "d_sae" in fields else {"expansion": 2}
            if "base" in fields:
                fields["base"] = {"class_path": "BatchTopK", "init_args": {"k": 4}}
        found.append(config)
    assert len(found) == 5
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that stands in a config, and of the fields that could."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))
    if isinstance(value, dict):
        for name in could(value, path):
            if name not in value:
                yield (*path, name)


def could(value: dict[str, Any], path: tuple[Any, ...]) -> list[str]:
    if path == ("trainer",):
        return list(TRAINER)
    if path == ("model",):
        return list(BANK)
    if path and path[-1] == "schedule":
        return [f.name for f in dataclasses.fields(Schedule)]
    kind = CLASSES.get(str(value.get("class_path")))
    return [] if kind is None or "init_args" not in value else ["init_args"]


def fields_of(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = list(places(config))
    for path in list(found):
        spec = at(config, path)
        if isinstance(spec, dict) and str(spec.get("class_path")) in CLASSES:
            found += [(*path, "init_args", f.name) for f in dataclasses.fields(CLASSES[spec["class_path"]])]
    return found


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if isinstance(config, dict) and key not in config:
            return None
        config = config[key]
    return config


def put(config: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {}) if isinstance(config, dict) else config[key]
    config[path[-1]] = value


def set_field(config: dict[str, Any], rng: random.Random) -> tuple[str, Any, Any]:
    path = rng.choice(fields_of(config))
    value = rng.choice(rng.choice([NUMBERS, NUMBERS, OTHERS, NESTED]))
    if path[-1] in ALONE and not (isinstance(value, int) and int(value) in ALONE[path[-1]]):
        value = rng.choice([0, -1, "x", [], {}, math.nan])
    put(config, path, value)
    return yaml.safe_dump(config), path[-1], value


def rename(config: dict[str, Any], rng: random.Random) -> tuple[str, Any, Any]:
    path = rng.choice([path for path in places(config) if isinstance(at(config, path[:-1]), dict) and at(config, path)])
    holder = at(config, path[:-1])
    name = rng.choice([f"{path[-1]}x", str(path[-1])[:-1], str(path[-1]).upper(), "", "16", "on", "a/b", "..", "x" * 300, 5])
    put(config, (*path[:-1], name), holder.pop(path[-1]))
    return yaml.safe_dump(config), None, None


def garble(config: dict[str, Any], rng: random.Random) -> tuple[str, Any, Any]:
    text = yaml.safe_dump(config)
    i = rng.randrange(len(text))
    ways = [
        text[:i],
        text[:i] + rng.choice("\0\t:{}[]&*!|>'\"%@`é\n") + text[i:],
        text[:i] + text[i + 1 :],
        text.replace("\n", "\r\n"),
        text.replace("  ", "\t", 1),
        text + text[: rng.randrange(200)],
        f"x-a: &a [*a]\n{text}",
        "[" * 3000,
        f"{text}more: {{{{ x }}}}\n",
        text.replace(": ", ": !!python/name:os.system ", 1),
        f"# größer é\n{text}",
        f"\ufeff{text}",
        f"--- \n{text}\n---\n{text}",
    ]
    return rng.choice(ways), None, None


def encode(config: dict[str, Any], rng: random.Random) -> tuple[bytes, Any, Any]:
    text = f"# größer é\n{yaml.safe_dump(config)}"
    return text.encode(rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "cp1252"])), None, None


def nonsense(field: Any, value: Any) -> bool:
    """What no setting can mean, said without asking any of their ranges."""
    if field is None or field in TEXTS or isinstance(value, bool | str):
        return False
    if isinstance(value, float | int):
        low = value < 0 and not (value == -1 and field in MINUS_ONE)
        return low or not math.isfinite(value) or abs(value) >= 2**63 or (field != "eta_min" and abs(value) >= 1e30)
    return isinstance(value, dict) and any(isinstance(n, float | int) and not 0 < n < math.inf for n in value.values())


def outcome(text: str | bytes) -> tuple[str, str]:
    """`trained`, `refused`, `hang`, or what a traceback ends in; and the last line."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    Path("cfg.yaml").write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.simplefilter("ignore")
            code = saelight_("fit", "--config", "cfg.yaml")
    except TimeoutError:
        return "hang", traceback.format_exc()
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
        torch.use_deterministic_algorithms(False)
    lines = [line for line in err.getvalue().splitlines() if line.startswith("saelight: error: ")]
    if code == 0:
        return "trained", ""
    whole = len(lines) == 1 and len(lines[0]) < 700 and err.getvalue().strip().endswith(lines[0])
    return ("refused" if whole else "not one line"), err.getvalue()[-700:]


def _too_long(*_: Any) -> None:
    raise TimeoutError


@pytest.fixture
def shards():
    from saelight.data.shards.writer import ShardWriter

    with ShardWriter(Path("shards"), model="none", hook="none", d_in=8, dtype="float32", rows_per_shard=400) as writer:
        writer.append(torch.randn(600, 8))


@pytest.mark.slow
def test_mutated_configs_train_or_are_refused_in_one_line(shards, capsys):
    rng, configs, counts, faults = random.Random(SEED), bases(), Counter(), []
    for i in range(MUTANTS):
        config = copy.deepcopy(configs[i % len(configs)])
        kind = rng.choices([set_field, rename, garble, encode], [7, 1, 1.5, 0.5])[0]
        text, field, value = kind(config, rng)
        result, last = outcome(text)
        if result == "trained" and nonsense(field, value):
            result = "silently accepted"
        counts[result] += 1
        if result not in ("trained", "refused"):
            faults.append(f"{i} {kind.__name__} {field}={value!r:.80}: {result}\n{last[-1500:]}")
            with capsys.disabled():
                print(faults[-1], flush=True)
    with capsys.disabled():
        print(f"\n{MUTANTS} mutated configs (seed {SEED}): {dict(sorted(counts.items()))}")
    assert faults == []
