"""The benchmark's results as text: a line while it runs, tables for docs/performance.md."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.pages import insert

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
OURS = "saelight"
TARGETS = {
    "topk": (2.5, 2.8, 2.5),
    "batch_topk": (8, 6.5, 9),
    "relu": (6, 3.7, 6.5),
    "relu, dense phase": (2.1, 1.8, 2.1),
    "jump_relu": (5, 4, 5),
    "gated": (7, 5, 7),
    "matryoshka": (7, 6, 7),
    "hard_concrete": (2, 3.5, 2),
}
"""What the ratio to the fastest peer is to be: float32 at 384 -> 3072, any precision there, float32 at 512 -> 8192."""


def fastest(rates: dict[str, list[float]], of_ours: bool, precision: str | None) -> tuple[str, list[float]]:
    """The name and rates of the fastest among ours or the peers', at one precision or (None) any."""
    among = {
        name: values
        for name, values in rates.items()
        if name.startswith(OURS) == of_ours and (precision is None or name.endswith(precision))
    }
    return max(among.items(), key=lambda item: item[1][0])


def line(size: str, threads: int, row: str, entry: dict[str, Any]) -> str:
    rates = "  ".join(f"{name} {v[0]:.1f}" for name, v in sorted(entry["rates"].items(), key=lambda item: -item[1][0]))
    same = fastest(entry["rates"], True, "fp32")[1][0] / fastest(entry["rates"], False, "fp32")[1][0]
    any_ = fastest(entry["rates"], True, None)[1][0] / fastest(entry["rates"], False, None)[1][0]
    return f"{size} {threads} thread{'s'[: threads > 1]}  {row:18s} fp32 x{same:.2f}  any x{any_:.2f} | {rates}"


def _cell(rate: list[float]) -> str:
    middle, low, high = rate
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def tables(results: dict[str, Any]) -> str:
    """Markdown: what it was measured on, then one table for each size and number of threads."""
    names = ("torch", "sae-lens", "dictionary-learning", "eai-sparsify", "overcomplete")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    text = [f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}.", ""]
    for key, rows in results.items():
        size, threads = key.split("/")
        saes, rounds = (next(iter(rows.values()))[name] for name in ("saes", "rounds"))
        text += [f"### {size.replace('x', ' → ')}, {threads} thread{'s'[: int(threads) > 1]}", ""]
        text += [f"`python -m benchmarks.speed --size {size} --threads {threads} --saes {saes} --rounds {rounds}`", ""]
        text += ["| variant | fp32 | fastest peer, fp32 | ratio (target) | any | peers' best | ratio (target) | floor |"]
        text += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
        for row, entry in rows.items():
            text.append(_row(size, row, entry))
        text.append("")
    return "\n".join(text)


def _row(size: str, row: str, entry: dict[str, Any]) -> str:
    rates = entry["rates"]
    cells, small = [row], size == "384x3072"
    targets = TARGETS[row]
    for precision, target in (("fp32", targets[0] if small else targets[2]), (None, targets[1] if small else None)):
        own, (name, peer) = fastest(rates, True, precision), fastest(rates, False, precision)
        ratio = f"**{own[1][0] / peer[0]:.1f}**" + (f" ({target})" if target else "")
        label = name if precision is None else name.rsplit(" ", 1)[0]
        cells += [_cell(own[1]), f"{label} {_cell(peer)}", ratio]
    floor = rates["saelight fp32"][0] / entry["floor"]["fp32"]
    return "| " + " | ".join([*cells, f"{100 * floor:.0f} %"]) + " |"


def _processor() -> str:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.split(":")[1].strip()
    return platform.processor() or platform.machine()


def write(results: dict[str, Any]) -> None:
    """Put the tables into docs/performance.md, between its marks."""
    PAGE.write_text(insert(PAGE.read_text(), "speed", f"\n{tables(results)}"))
