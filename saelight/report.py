"""Results: one line of `results.jsonl` and one row of the table per SAE."""

import json
import math
from pathlib import Path
from typing import Any

from saelight import export, runs
from saelight.callbacks import WriteProgress


def results(trainer, bank, clock: WriteProgress | None = None) -> list[dict[str, Any]]:
    """One dict per SAE: name, state, config, seed, last metrics, and how it was trained.

    Args:
        clock: Of the fit that has just ended: it knows how long each SAE trained, and what is measured once, when training
            is over (`Evaluation.latents`), is measured.
    """
    latents = bank.gauges.latents(list(bank.saes)) if clock and bank.evaluation else [{}] * len(bank.names)
    rows = []
    for i, name in enumerate(bank.names):
        state = f"retired: {bank.retired[i]}" if i in bank.retired else "finished"
        if i in bank.quarantine.stopped:
            state = f"quarantined: {bank.quarantine.describe(i)}"
        rows.append({
            "name": name,
            "state": state,
            "config": bank.hparams["saes"][name],
            "seed": bank.seeds[i],
            "metrics": bank.evaluation.get(name, {}) | latents[i],
            "steps": trainer.global_step,
            "tokens": bank.tokens_seen,
            "seconds": clock and clock.seconds,
            "device": str(bank.device),
            "folder": str(export.folder_for(trainer, name)) if trainer.writes else None,
        } | (clock.ended.get(name, {}) if clock else {}))  # fmt: skip
    return rows


def write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write `rows` as JSON lines, whole or not at all. JSON has no NaN, which a poisoned SAE's metrics may be: null."""
    rows = [row | {"metrics": {k: v if math.isfinite(v) else None for k, v in row["metrics"].items()}} for row in rows]
    runs.write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as one aligned table: name, L0, FVU, MMCS where the truth is known, dead %, folder."""
    columns = {"l0": ("L0", "{:.1f}", 1), "fvu": ("FVU", "{:.4f}", 1), "mmcs": ("MMCS", "{:.3f}", 1),
               "dead": ("dead %", "{:.1f}", 100)}  # fmt: skip
    shown = {k: v for k, v in columns.items() if k != "mmcs" or any("mmcs" in row["metrics"] for row in rows)}
    lines = [["name", *(title for title, _, _ in shown.values()), "folder"]]
    for row in rows:
        cells = [
            form.format(factor * row["metrics"][key]) if key in row["metrics"] else "-"
            for key, (_, form, factor) in shown.items()
        ]
        lines.append([row["name"], *cells, row["folder"] if row["state"] == "finished" else row["state"]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(c.ljust(w) if i in (0, last) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip() for line in lines
    )  # fmt: skip
