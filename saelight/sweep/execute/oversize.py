"""Groups that no device of a launcher's has room for."""

from collections.abc import Sequence

from saelight.run.memory import size
from saelight.sweep.execute.launch import Launcher
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.groups import memory_of
from saelight.sweep.store.sweep_folder import Group


def too_large(groups: Sequence[tuple[Group, list[Entry]]], launcher: Launcher) -> dict[str, str]:
    """By group: why it cannot be trained, and what to do. (A group is made as small as its largest SAE.)"""
    limit = launcher.memory_limit
    if limit is None:
        return {}
    found = {}
    for group, entries in groups:
        # On the devices at hand, whichever it was planned for.
        needed = memory_of(entries, launcher.kinds)
        if needed > limit:
            largest = max(entries, key=lambda entry: entry.parameters)
            found[group.id] = (
                f"{largest.name} ({group.id}, d_sae {largest.d_sae}) takes about {size(needed)}, and a run on "
                f"{launcher.workers[0]} may take {size(limit)}: lower its d_sae, expansion or data.batch_size, run fewer at "
                "once, or leave it out by --filter"
            )
    return found
