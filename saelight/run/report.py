"""Results: one line of `results.jsonl` and one row of the table per SAE."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L

from saelight.bank import SAEBank
from saelight.bank.outcome import Outcome
from saelight.bank.trainer_attributes import undeclared
from saelight.bars import duration
from saelight.callbacks import WriteProgress
from saelight.files import table as text_table
from saelight.files import write_text
from saelight.run import export
from saelight.run.fvu_mark import MARK, NOTE, disagrees
from saelight.run.wanted_l0 import wanted_l0


def results(trainer: L.Trainer, bank: SAEBank, writes: bool, clock: WriteProgress | None = None) -> list[dict[str, Any]]:
    """One dict per SAE: name, state and reason, config, seed, whose activations, last metrics, and how it was trained.

    Args:
        writes: Whether the run has a folder.
        clock: Of the fit that has just ended: it knows how long each SAE trained.
    """
    source = getattr(undeclared(trainer).datamodule, "source", None) or {}
    rows = []
    for i, name in enumerate(bank.names):
        outcome = bank.result(name)
        rows.append(
            {
                "name": name,
                **outcome._asdict(),
                "config": bank.hparams["saes"][name],
                "seed": bank.seeds[i],
                "d_sae": bank.saes[i].d_sae,
                "model": source.get("model"),
                "hook": source.get("hook"),
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
    """Write `rows` as JSON lines, whole or not at all, and each SAE's metrics beside its weights. JSON has no NaN, which a
    poisoned SAE's metrics may be: null."""
    rows = [row | {"metrics": {k: v if math.isfinite(v) else None for k, v in row["metrics"].items()}} for row in rows]
    for row in rows:
        if row["metrics"] and Path(row["folder"]).exists():
            export.note_metrics(Path(row["folder"]), row["metrics"])
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as one aligned table, and where the SAEs are.

    Name, variant, d_sae, L0 and the one wanted, FVU, MMCS where the truth is known, dead %, the time of training, and what
    ended the SAEs that are not finished. Where an FVU is marked as not that of most tokens, the median token's stands beside
    it.
    """
    metrics = {
        "l0": ("L0", "{:.1f}", 1),
        "wanted_l0": ("wanted", "{:g}", 1),
        "fvu": ("FVU", "{:.4f}", 1),
        "fvu_median": ("median", "{:.4f}", 1),
        "mmcs": ("MMCS", "{:.3f}", 1),
        "dead": ("dead %", "{:.1f}", 100),
    }
    rows = [row | {"metrics": row["metrics"] | _wanted(row["config"])} for row in rows]
    marked, timed = any(disagrees(row["metrics"]) for row in rows), any(row["seconds"] for row in rows)
    ended = any(row["state"] != "finished" for row in rows)
    wanted = {"fvu_median": marked} | {key: any(key in row["metrics"] for row in rows) for key in ("wanted_l0", "mmcs")}
    shown = {k: v for k, v in metrics.items() if wanted.get(k, True)}
    titles = [title for title, _, _ in shown.values()]
    lines = [["name", "variant", "d_sae", *titles, *["time"] * timed, *["state"] * ended]]
    for row in rows:
        cells = [
            form.format(factor * row["metrics"][key]) if key in row["metrics"] else "-"
            for key, (_, form, factor) in shown.items()
        ]
        if disagrees(row["metrics"]):
            cells[list(shown).index("fvu")] += MARK
        first = [row["name"], row["config"]["class_path"].rpartition(".")[2], f"{row['d_sae']:,}"]
        time = duration(row["seconds"]) if row["seconds"] else "-"
        lines.append([*first, *cells, *[time] * timed, *[str(Outcome(row["state"], row["reason"]))] * ended])
    notes = [NOTE] * marked + [f"the SAEs are in {place}" for place in _places(rows)]
    return "\n".join([text_table(lines, left=(0, 1, len(lines[0]) - 1 if ended else 0)), *notes])


def _places(rows: list[dict[str, Any]]) -> list[str]:
    """The folder that has the SAEs' own, if any is written."""
    return sorted({f"{Path(row['folder']).parent}/" for row in rows if row["folder"]})


def _wanted(config: dict[str, Any]) -> dict[str, float]:
    l0 = wanted_l0(config)
    return {} if l0 is None else {"wanted_l0": l0}
