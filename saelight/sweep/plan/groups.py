"""Entries into groups: those that may share a run do, as far as memory and `max_saes` go."""

import heapq
from collections.abc import Iterable, Sequence

from saelight.run.memory import Needs, group_bytes
from saelight.sweep.plan.entry import Entry


def split(
    entries: Iterable[Entry],
    max_saes: int | None,
    max_bytes: int | None,
    at_least: int = 1,
    kinds: Sequence[str] = ("cpu",),
) -> list[list[Entry]]:
    """Groups of entries whose runs are alike, none larger than the limits, and `at_least` so many where there are enough
    entries: as many as there are workers. Groups of one config get about the same work each.

    An SAE that is larger than `max_bytes` by itself is a group of its own.
    """
    alike: dict[str, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(entry.run_config, []).append(entry)
    groups = []
    for members in alike.values():
        # Workers that other configs will keep busy need no groups of this one.
        wanted = min(len(members), max(1, -(-at_least // len(alike))))
        n = max(wanted, -(-len(members) // (max_saes or len(members))))
        while True:
            parts = _deal(members, n)
            if n >= len(members) or all(_fits(part, max_saes, max_bytes, kinds) for part in parts):
                break
            n += 1
        groups += parts
    return groups


def memory_of(members: list[Entry], kinds: Sequence[str] = ("cpu",)) -> int:
    """Predicted bytes of a group's run, above the process's own, on that of these kinds of device where they are most."""
    needs = [{kind: Needs(*of) for kind, of in entry.memory.items()} for entry in members]
    return max(group_bytes(needs, kind) for kind in kinds)


def _deal(members: list[Entry], n: int) -> list[list[Entry]]:
    """n groups of about equal work, each in the sweep's order: the largest first, each to the group with the least."""
    order = {entry.hash: i for i, entry in enumerate(members)}
    parts: list[list[Entry]] = [[] for _ in range(n)]
    work = [(0, 0, i) for i in range(n)]
    for entry in sorted(members, key=lambda entry: -entry.parameters):
        done, saes, least = work[0]
        parts[least].append(entry)
        heapq.heapreplace(work, (done + max(1, entry.parameters), saes + 1, least))
    return [sorted(part, key=lambda entry: order[entry.hash]) for part in parts if part]


def _fits(part: list[Entry], max_saes: int | None, max_bytes: int | None, kinds: Sequence[str]) -> bool:
    return (max_saes is None or len(part) <= max_saes) and (
        max_bytes is None or len(part) == 1 or memory_of(part, kinds) <= max_bytes
    )
