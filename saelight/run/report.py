"""Results: one line of `results.jsonl` and one row of the table per SAE."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L

from saelight.bank import SAEBank
from saelight.bank.outcome import Outcome
from saelight.callbacks import WriteProgress
from saelight.files import table as text_table
from saelight.files import write_text
from saelight.run import export
from saelight.run.fvu_mark import MARK, NOTE, disagrees
from saelight.run.wanted_l0 import wanted_l0


def results(trainer: L.Trainer, bank: SAEBank, writes: bool, clock: WriteProgress | None = None) -> list[dict[str, Any]]:
    """One dict per SAE: name, state and reason, config, seed, last metrics, and how it was trained.

    Args:
        writes: Whether the run has a folder.
        clock: Of the fit that has just ended: it knows how long each SAE trained.
    """
    rows = []
    for i, name in enumerate(bank.names):
        outcome = bank.result(name)
        rows.append(
            {
                "name": name,
                **outcome._asdict(),
                "config": bank.hparams["saes"][name],
                "seed": bank.seeds[i],
                "metrics": bank.last_metrics.get(name, {}),
                "density": bank.evaluation.density(i),
                "steps": trainer.global_step,
                "tokens": bank.tokens_seen,
                "seconds": clock and clock.seconds,
                "device": str(bank.device),
                "folder": str(export.folder_for(trainer, name)) if writes else None,
            }
            | (clock.ended.get(name, {}) if clock else {})
        )
    return rows


def write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write `rows` as JSON lines, whole or not at all. JSON has no NaN, which a poisoned SAE's metrics may be: null."""
    rows = [row | {"metrics": {k: v if math.isfinite(v) else None for k, v in row["metrics"].items()}} for row in rows]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as one aligned table: name, L0 and the one wanted, FVU, MMCS where the truth is known, dead %, folder.
    Where an FVU is marked as not that of most tokens, the median token's stands beside it."""
    columns = {
        "l0": ("L0", "{:.1f}", 1),
        "wanted_l0": ("wanted", "{:g}", 1),
        "fvu": ("FVU", "{:.4f}", 1),
        "fvu_median": ("median", "{:.4f}", 1),
        "mmcs": ("MMCS", "{:.3f}", 1),
        "dead": ("dead %", "{:.1f}", 100),
    }
    rows = [row | {"metrics": row["metrics"] | _wanted(row["config"])} for row in rows]
    marked = any(disagrees(row["metrics"]) for row in rows)
    wanted = {"fvu_median": marked} | {key: any(key in row["metrics"] for row in rows) for key in ("wanted_l0", "mmcs")}
    shown = {k: v for k, v in columns.items() if wanted.get(k, True)}
    lines = [["name", *(title for title, _, _ in shown.values()), "folder"]]
    for row in rows:
        cells = [
            form.format(factor * row["metrics"][key]) if key in row["metrics"] else "-"
            for key, (_, form, factor) in shown.items()
        ]
        if disagrees(row["metrics"]):
            cells[list(shown).index("fvu")] += MARK
        outcome = Outcome(row["state"], row["reason"])
        lines.append([row["name"], *cells, row["folder"] if outcome.state == "finished" else str(outcome)])
    return text_table(lines, left=(0, len(shown) + 1)) + (f"\n{NOTE}" if marked else "")


def _wanted(config: dict[str, Any]) -> dict[str, float]:
    l0 = wanted_l0(config)
    return {} if l0 is None else {"wanted_l0": l0}
