"""What a sweep would take on machines that are not at hand, from their stated figures: hours, bytes and requests."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from saelight.bars import duration
from saelight.data.stream.order import BLOCK
from saelight.errors import UserError, did_you_mean
from saelight.files import table
from saelight.run.memory import moments, size
from saelight.sweep.execute.launch.local import SHARE
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.groups import memory_of, split

if TYPE_CHECKING:
    from saelight.data.source import Description

_FLOAT = 4


@dataclass(frozen=True)
class Cluster:
    """GPUs of one kind."""

    gpus: int
    """How many."""
    tflops: float
    """10¹² operations per second that large products of one GPU reach, at the run's precision."""
    memory_gb: float
    """GB (10⁹ bytes) of one GPU."""
    gb_per_s: float
    """GB of activations per second that reach one GPU, while all of them read."""

    def __str__(self) -> str:
        each = f"{self.tflops:g} TFLOP/s and {self.memory_gb:g} GB, each reading {self.gb_per_s:g} GB/s"
        return f"{self.gpus} GPU{'s' * (self.gpus != 1)} of {each}"


def parse_cluster(text: str) -> Cluster:
    """`gpus=64,tflops=300,memory_gb=80,gb_per_s=2`. Raises `UserError` for anything else."""
    names = [field.name for field in fields(Cluster)]
    known: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in names:
            raise UserError(f"--cluster has no {name!r}{did_you_mean(name, names)}; write {_EXAMPLE}")
        try:
            known[name] = float(value)
        except ValueError:
            known[name] = math.nan
        if not 0 < known[name] < math.inf or (name == "gpus" and known[name] % 1):
            raise UserError(f"--cluster: {name} is a number above 0, not {value!r}; write {_EXAMPLE}")
    if missing := [name for name in names if name not in known]:
        raise UserError(f"--cluster lacks {', '.join(missing)}; write {_EXAMPLE}")
    return Cluster(int(known["gpus"]), known["tflops"], known["memory_gb"], known["gb_per_s"])


_EXAMPLE = "--cluster gpus=64,tflops=300,memory_gb=80,gb_per_s=2"


def cluster_plan(
    entries: Sequence[Entry], run_configs: Mapping[str, dict[str, Any]], cluster: Cluster, max_saes: int | None = None
) -> str:
    """A line for the groups of each number of SAEs, and the sums.

    A group trains densely, 6 operations per weight and token, while it reads: the longer of both counts. Each group reads
    all of its data, every epoch, in blocks of 512 rows, a request each.
    """
    limit = SHARE * cluster.memory_gb * 1e9
    groups = split(entries, max_saes, round(limit), cluster.gpus, ("gpu",))
    large = [group[0] for group in groups if memory_of(group, ("gpu",)) > limit]
    groups = [group for group in groups if group[0] not in large]
    data = {key: _described(config) for key, config in run_configs.items()}
    costs = [_cost(group, data[group[0].run_config], cluster) for group in groups]
    free = [0.0] * cluster.gpus
    for cost in sorted(costs, key=lambda cost: -cost.seconds):
        heapq.heapreplace(free, free[0] + cost.seconds)
    lines: list[tuple[str, ...]] = [("groups", "SAEs", "memory", "reads", "requests", "training", "reading")]
    for saes in sorted({cost.saes for cost in costs}):
        of = [cost for cost in costs if cost.saes == saes]
        most = _Cost(*map(max, zip(*of, strict=True)))
        times = (duration(most.training), duration(most.reading))
        lines.append((str(len(of)), str(saes), size(most.memory), size(most.read), f"{most.requests:,}", *times))
    said = [f"on {cluster}, as stated (of groups that differ the most that one takes):", table(lines)]
    if large:
        needed, first = memory_of([large[0]], ("gpu",)), large[0].name
        said.append(f"too large: {len(large)} points, as {first}, which takes {size(needed)} of {size(limit)}")
    if not all(cost.read for cost in costs):
        return "\n".join([*said, "time and bytes are unknown until the data are there"])
    disk = sum(_FLOAT * e.parameters * (2 + moments(e.sae.get("optimizer"))) for group in groups for e in group)
    read, requests = sum(cost.read for cost in costs), sum(cost.requests for cost in costs)
    total = f"{duration(max(free))}; {size(read)} read in {requests:,} requests; disk {size(disk)}"
    return "\n".join([*said, f"{sum(map(len, groups))} SAEs in {len(groups)} groups: {total}"])


class _Cost(NamedTuple):
    """What one group takes."""

    saes: int
    memory: int
    read: int
    """Bytes of activations; 0 where the data cannot be read yet."""
    requests: int
    training: float
    """Seconds."""
    reading: float
    """Seconds."""

    @property
    def seconds(self) -> float:
        return max(self.training, self.reading)


def _cost(group: list[Entry], data: "Description | None", cluster: Cluster) -> _Cost:
    tokens, memory = group[0].tokens, memory_of(group, ("gpu",))
    if tokens is None or data is None:
        return _Cost(len(group), memory, 0, 0, 0.0, 0.0)
    read, operations = tokens * data.row_bytes, 6 * tokens * sum(entry.parameters for entry in group)
    training, reading = operations / (cluster.tflops * 1e12), read / (cluster.gb_per_s * 1e9)
    return _Cost(len(group), memory, read, -(-tokens // BLOCK), training, reading)


def _described(config: dict[str, Any]) -> "Description | None":
    """A run's data; None where they cannot be read yet, or do not describe themselves."""
    from saelight.data.source import Source
    from saelight.sweep.plan.classes import read_source

    source = read_source(config.get("data") or {}, "data")
    if not isinstance(source, Source):
        return None
    try:
        return source.describe()
    except UserError:
        return None
