"""The SAEs of a run folder, from whatever it holds of them: results, progress, exports, logs, config."""

import json
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.files import is_locked
from saelight.parsing.config_files import read_mapping
from saelight.report.sae_row import SAERow
from saelight.run.evaluation_file import on_model
from saelight.sweep.plan import configs
from saelight.sweep.store import run_files

_LARGEST = 16 * 2**20
"""Bytes of an SAE's `config.json`; one is some thousands."""
_SIGNS = ("progress.json", "results.jsonl", "checkpoints/last.ckpt", "logs", "saes")


def is_run(folder: Path) -> bool:
    """Whether a training run has written into the folder."""
    return any((folder / sign).exists() for sign in _SIGNS)


def saes_of(run: Path, problems: list[str]) -> list[SAERow]:
    """One row per SAE that any of the run's files names; `problems` takes what cannot be read or is missing."""
    results, progress = results_of(run, problems), run_files.progress(run)
    if not progress and not results:
        problems.append(f"{run / 'progress.json'} is missing or damaged: how far training came is not known")
    ended = progress and all(sae["state"] != "running" for sae in progress.get("saes", {}).values())
    if ended and not (run / "results.jsonl").exists():
        problems.append(f"{run / 'results.jsonl'} is missing: metrics are those of the last validation")
    config = _config(run, problems)
    planned = configs.find(config, "model.saes")
    planned = planned if isinstance(planned, dict) else {}
    names = [
        *results,
        *progress.get("saes", {}),
        *planned,
        *folders(run / "logs", "metrics.csv"),
        *folders(run / "saes", "config.json"),
    ]
    batch_size = configs.find(config, "data.batch_size")
    at_work = is_locked(run / ".lock", unknown=True)
    rows = []
    for name in dict.fromkeys(map(str, names)):
        row = _row(run, name, progress, results.get(name, {}), planned.get(name), at_work)
        row.batch_size = batch_size
        rows.append(row)
    return rows


def _row(run: Path, name: str, progress: dict[str, Any], result: dict[str, Any], planned: Any, at_work: bool) -> SAERow:
    """One SAE: of what two files say, the results' word counts before the progress's, and that before the export's."""
    row = SAERow([name], "", None, {}, {}, run)
    exported, sae = description(row), progress.get("saes", {}).get(name, {})
    if at_work and sae.get("state") == "running":
        result = {}  # of an earlier life, that had been stopped
    row.config = _first_config(result.get("config"), exported, planned)
    row.state, row.reason = _outcome(at_work, result, sae, exported.get("training"))
    folder = row.inside("saes")
    row.metrics = result.get("metrics") or sae.get("val", {}) | (on_model(folder) if folder is not None else {})
    row.density = result.get("density")
    row.seed = result.get("seed", exported.get("seed"))
    row.d_sae = exported.get("d_sae") or row.fields.get("d_sae")
    row.loss, row.of_steps = sae.get("loss"), progress.get("steps")
    row.steps, row.tokens, row.seconds = (
        result.get(key, sae.get(key, progress.get(so_far)))
        for key, so_far in (("steps", "step"), ("tokens", "tokens"), ("seconds", "seconds"))
    )
    row.device = progress.get("device") or result.get("device")
    row.eta = progress.get("eta") if row.state == "running" else None
    return row


def results_of(run: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """A run's results by SAE; none where they cannot be read, which is a problem."""
    try:
        return run_files.results(run)
    except UserError as error:
        problems.append(str(error))
        return {}


def description(row: SAERow) -> dict[str, Any]:
    """What an SAE's export says of it; nothing where there is none that can be read."""
    folder = row.inside("saes")
    try:
        if folder is None or (folder / "config.json").stat().st_size > _LARGEST:
            return {}
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def folders(parent: Path, file: str) -> list[str]:
    """The names of the SAEs that have this file in a folder of theirs."""
    try:
        return sorted(path.parent.name for path in parent.glob(f"*/{file}") if path.parent.name != "bank")
    except OSError:
        return []


def _config(run: Path, problems: list[str]) -> dict[str, Any]:
    """The run's config; nothing of a run that Python code has started, which has none."""
    path = run / "config.yaml"
    if not path.is_file():
        return {}
    try:
        return read_mapping(path)
    except (OSError, UserError) as error:
        problems.append(str(error))
        return {}


def _first_config(*given: Any) -> dict[str, Any]:
    for config in given:
        if isinstance(config, dict) and isinstance(config.get("class_path"), str):
            fields = config.get("init_args")
            return {"class_path": config["class_path"], "init_args": fields if isinstance(fields, dict) else {}}
    return {}


def _outcome(at_work: bool, *said: Any) -> tuple[str, str | None]:
    """State and reason, as the first says that knows how it ended; where none does, whether somebody trains it now."""
    for ended in said if not at_work else said[:2]:
        if isinstance(ended, dict) and isinstance(state := ended.get("state"), str) and state != "running":
            return state, ended.get("reason")
    return ("running" if at_work else "interrupted"), None
