"""Groups that no device of a launcher's has room for."""

from collections.abc import Sequence

from saelight.run.memory import least_bytes, size
from saelight.sweep.execute.launch import Launcher
from saelight.sweep.plan.entry import Entry
from saelight.sweep.store.sweep_folder import Group


def too_large(groups: Sequence[tuple[Group, list[Entry]]], launcher: Launcher) -> dict[str, str]:
    """By group: why it cannot be trained, and what to do.

    A group is made as small as its largest SAE. On the CPU it is judged by the memory predicted; elsewhere, where that
    prediction is on the safe side, by weights, gradients and moments alone.
    """
    limit = launcher.memory_limit
    if limit is None:
        return {}
    cpu = all(device.name == "cpu" for device in launcher.devices)
    found = {}
    for group, entries in groups:
        least = sum(least_bytes(entry.parameters, entry.sae.get("optimizer")) for entry in entries)
        needed = group.memory if cpu else least
        if needed > limit:
            largest = max(entries, key=lambda entry: entry.parameters)
            found[group.id] = (
                f"{largest.name} ({group.id}, d_sae {largest.d_sae}) takes about {size(needed)}, and a run on "
                f"{launcher.workers[0]} may take {size(limit)}: lower its d_sae, expansion or data.batch_size, run fewer at "
                "once, or leave it out by --filter"
            )
    return found
