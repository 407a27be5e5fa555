"""The SAEs of a sweep's folder: a row per SAE, from the index, the runs and the journal."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saelight.report.run_saes import results_of
from saelight.report.sae_row import SAERow
from saelight.sweep.execute.launch.reconcile import reconcile_jobs
from saelight.sweep.plan import configs
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.sweep_folder import Index, SweepFolder


def saes_of(folder: SweepFolder, index: Index, problems: list[str]) -> list[SAERow]:
    """One row per SAE, in the sweep's order; points that are the same SAE share it. `problems` takes what is missing."""
    reconcile_jobs(folder)
    problems += index.missing
    # What cannot be read, `results_of` says below.
    points = collect(folder, index, unreadable=[])
    densities = {group: _densities(folder.run(group), problems) for group in index.groups}
    rows: dict[str, SAERow] = {}
    for point in points:
        if (row := rows.get(point["hash"])) is not None:
            row.names += [point["name"]] if point["name"] not in row.names else []
            continue
        entry = index.entries[point["hash"]]
        rows[point["hash"]] = SAERow(
            names=list(dict.fromkeys([entry.name, point["name"]])),
            state=point["state"],
            reason=point["reason"] or point["error"],
            config=point["config"],
            metrics=point["metrics"],
            run=folder.run(point["group"]),
            group=point["group"],
            seed=point["seed"],
            d_sae=point["d_sae"],
            batch_size=configs.find(index.run_configs[entry.run_config], "data.batch_size"),
            settings=point["settings"],
            density=densities[point["group"]].get(entry.name),
            **{key: point[key] for key in ("loss", "steps", "of_steps", "tokens", "seconds", "device", "eta")},
        )
    problems += _missing_runs(folder, index, rows.values())
    return list(rows.values())


def _densities(run: Path, problems: list[str]) -> dict[str, Any]:
    return {name: result.get("density") for name, result in results_of(run, problems).items()}


def _missing_runs(folder: SweepFolder, index: Index, rows: Iterable[SAERow]) -> list[str]:
    """What to say of groups that were trained and whose run folder is gone."""
    said = []
    for group in index.groups.values():
        begun = [row for row in rows if row.group == group.id and row.state not in ("waiting", "running", "failed")]
        if begun and not folder.run(group.id).is_dir():
            said.append(f"{folder.run(group.id)} is missing: nothing is known of its {len(begun)} SAEs but their state")
    return said
