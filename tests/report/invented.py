"""Run folders that nobody trained, and what a page holds."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

KINDS = ("TopK", "ReLU", "Gated")


def row(i: int, rng: random.Random, **changes: Any) -> dict[str, Any]:
    """A line of `results.jsonl`: the sparser the less it explains, and best at a middling rate."""
    kind, k, lr = KINDS[i % 3], 2 ** (2 + i // 3 % 5), (1e-4, 1e-3, 1e-2)[i // 15 % 3]
    fvu = 1.2 * k**-0.5 * (1 + 0.1 * (i % 3)) * (1.2 if lr != 1e-3 else 1.0) * (1 + 0.02 * rng.random())
    counts = [rng.randint(0, 9) for _ in range(32)]
    return {
        "name": f"{kind.lower()}-{i}",
        "state": "finished",
        "reason": None,
        "config": {"class_path": f"saelight.saes.{kind.lower()}.{kind}", "init_args": {"lr": lr, "d_sae": 256, "k": k}},
        "seed": rng.getrandbits(63),
        "metrics": {"l0": k * 1.0, "fvu": fvu, "dead": 0.1, "cosine": 0.9, "clusters": 3.0, "silhouette": 0.4},
        "density": {"lowest": -8, "per_decade": 4, "counts": counts, "silent": 256 - sum(counts)},
        "steps": 1000,
        "tokens": 256_000,
        "seconds": 12.5,
        "device": "cpu",
        "folder": None,
    } | changes


def invent(folder: Path, n: int, logged: int = 20, **changes: Any) -> Path:
    """A run folder of `n` SAEs that have finished, with so many logged steps each."""
    rng = random.Random(0)
    rows = [row(i, rng, **changes) for i in range(n)]
    for one in rows:
        log = folder / "logs" / one["name"] / "metrics.csv"
        log.parent.mkdir(parents=True)
        lines = [f"{50 * s},{1 / (s + 1):.6f},{one['metrics']['l0']},{1 / (s + 2):.6f}," for s in range(logged)]
        log.write_text("\n".join(["step,train/loss,train/l0,train/fvu,val/fvu", *lines, f"{50 * logged},,,,0.5"]) + "\n")
        export = folder / "saes" / one["name"] / "config.json"
        export.parent.mkdir(parents=True)
        source = {"model": "synthetic", "hook": None}
        export.write_text(json.dumps({"d_in": 64, "d_sae": 256, "source": source, "training": {"state": "finished"}}))
    write_results(folder, rows)
    return folder


def write_results(folder: Path, rows: list[dict[str, Any]]) -> None:
    """A run's `results.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))


def read_results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


class Parsed(HTMLParser):
    """A page as a parser sees it: its tags in order, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def data_of(page: Path) -> dict[str, Any]:
    """What the page holds, which must be strict JSON."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(block, parse_constant=refuse)
