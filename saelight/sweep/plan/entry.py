"""A sweep's points as they are planned and kept: plain data, light to read."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Entry:
    """A point to train, as the sweep's index keeps it."""

    hash: str
    """Its identity: equal for points that would train the same SAE."""
    name: str
    """The SAE's name in its run."""
    names: list[str]
    """The names of the sweep's points that it is."""
    seed: int
    settings: dict[str, Any]
    sae: dict[str, Any]
    """`{class_path, **fields}`, the seed left out."""
    run_config: str
    """Key of the run's config, the SAEs left out."""
    variant: str
    d_sae: int
    parameters: int
    memory: dict[str, list[int]]
    """By kind of device, `cpu` and `gpu`: bytes it holds all the time, in its turn, and those that its run shares."""
    tokens: int | None
    """Tokens its run trains on, where its config tells."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Resolved:
    """Points of a sweep, ready to be grouped."""

    entries: list[Entry] = field(default_factory=list)
    run_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The runs' configs without SAEs, by key."""
    missing: list[str] = field(default_factory=list)
    """Why some data cannot be read yet."""
    notes: list[str] = field(default_factory=list)
    """What to say of it."""
