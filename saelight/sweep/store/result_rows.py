"""A row per point: all that is known of it, from the index, the runs' own files and the journal. Light: no torch."""

import os
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.run.fvu_mark import disagrees
from saelight.sweep.plan import configs
from saelight.sweep.plan.entry import Entry
from saelight.sweep.store import run_files
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.sweep_folder import Group, Index, SweepFolder


def collect(folder: SweepFolder, index: Index, unreadable: list[str] | None = None) -> list[dict[str, Any]]:
    """One dict per point and name: points that are the same SAE appear under each of their names.

    Args:
        unreadable: Takes what is wrong with results that cannot be read, which are then left out; else `UserError`.
    """
    events = Journal(folder.path).last()
    shared = sorted({key for entry in index.entries.values() for key in entry.settings if not key.startswith("sae.")})
    rows = []
    for group in index.groups.values():
        finished = _results(folder.run(group.id), unreadable)
        progress = run_files.progress(folder.run(group.id))
        event = events.get(group.id, {})
        for member in group.members:
            entry = index.entries[member]
            row = _row(folder, index, group, entry, finished.get(entry.name), progress, event)
            # What only some points set has a value for the others too.
            row["settings"] = {key: configs.find(index.run_configs[entry.run_config], key) for key in shared} | row[
                "settings"
            ]
            rows += [row | {"name": name} for name in entry.names]
    order = {name: i for i, name in enumerate(name for entry in index.entries.values() for name in entry.names)}
    return sorted(rows, key=lambda row: order[row["name"]])


def _results(run: Path, unreadable: list[str] | None) -> dict[str, dict[str, Any]]:
    try:
        return run_files.results(run)
    except UserError as error:
        if unreadable is None:
            raise
        unreadable.append(str(error))
        return {}


def _row(
    folder: SweepFolder,
    index: Index,
    group: Group,
    entry: Entry,
    result: dict[str, Any] | None,
    progress: dict[str, Any],
    event: dict[str, Any],
) -> dict[str, Any]:
    sae = progress.get("saes", {}).get(entry.name, {})
    row = {
        "name": entry.name,
        "sweep": index.name,
        "hash": entry.hash,
        "group": group.id,
        **_state(folder, group, progress, sae, event),
        "error": event.get("error") if event.get("event") == "failed" else None,
        "seed": entry.seed,
        "variant": entry.variant,
        "d_sae": entry.d_sae,
        "settings": entry.settings,
        "config": {
            "class_path": entry.sae["class_path"],
            "init_args": {k: v for k, v in entry.sae.items() if k != "class_path"},
        },
        "metrics": sae.get("val", {}),
        "loss": sae.get("loss"),
        "steps": sae.get("steps", progress.get("step")),
        "of_steps": progress.get("steps"),
        "tokens": sae.get("tokens", progress.get("tokens")),
        "seconds": sae.get("seconds", progress.get("seconds")),
        "device": progress.get("device") or event.get("device"),
        "threads": event.get("threads"),
        # As it loads from anywhere, whatever folder the sweep was started from.
        "folder": str(folder.run(group.id).resolve() / "saes" / entry.name),
    }
    if event.get("device"):
        row["device"] = event["device"]
    for key in ("model", "hook"):
        row[key] = (result or {}).get(key)
    if result is not None:
        row |= {key: result[key] for key in ("state", "reason", "config", "seed", "metrics", "steps", "tokens", "seconds")}
    row["fvu_disagrees"] = disagrees(row["metrics"])
    seconds = row["seconds"]
    row["tokens_per_second"] = row["tokens"] / seconds if seconds and row["tokens"] else None
    row["eta"] = progress.get("eta") if row["state"] == "running" else None
    return row


def _state(
    folder: SweepFolder, group: Group, progress: dict[str, Any], sae: dict[str, Any], event: dict[str, Any]
) -> dict[str, str | None]:
    """The columns `state` and `reason` of an SAE without results yet; only one that its run has ended has a reason."""
    if sae.get("state", "running") != "running":
        return {"state": sae["state"], "reason": sae["reason"]}
    return {"state": _run_state(folder, group, progress, event), "reason": None}


def _run_state(folder: SweepFolder, group: Group, progress: dict[str, Any], event: dict[str, Any]) -> str:
    queued = event.get("event") == "submitted" and "job" in event and not progress
    if queued or not (event or folder.begun(group.id)):
        return "waiting"
    started = event.get("event") == "submitted" and "pid" in event
    if started and not folder.is_held(group.id) and not _lives(event["pid"]):
        # Its runner was killed, and it with it.
        return "interrupted"
    kind = event.get("event") or "begun"
    return "running" if kind == "submitted" else kind


def _lives(pid: Any) -> bool:
    """Whether there is such a process on this machine: one that has just been started holds nothing yet."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # someone else's
    return True
