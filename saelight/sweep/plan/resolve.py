"""A sweep's points resolved: each with its SAE's config, the config of its run, its identity and its size."""

from dataclasses import asdict, dataclass
from typing import Any

from saelight.errors import UserError
from saelight.sweep.plan import configs
from saelight.sweep.plan.data_facts import DataFacts, read_data, tokens, training_identity
from saelight.sweep.plan.memory import sae_bytes
from saelight.sweep.plan.points import Point
from saelight.sweep.plan.signatures import check_keys
from saelight.sweep.plan.spec import Sweep


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
    outside: str
    """Key of the run's config, the SAEs left out."""
    variant: str
    d_sae: int
    parameters: int
    memory: list[int]
    """Bytes it holds all the time, and in its turn."""
    row_bytes: int
    """Bytes of a row of its run's data."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Resolved:
    """Points of a sweep, ready to be grouped."""

    entries: list[Entry]
    outsides: dict[str, dict[str, Any]]
    """The runs' configs without SAEs, by key."""
    facts: dict[str, DataFacts]
    notes: list[str]


def resolve(sweep: Sweep, points: list[Point], overrides: dict[str, Any] | None = None) -> Resolved:
    """Check every point against the real classes, and find those that are the same.

    Args:
        sweep: Whose base and defaults the points complete.
        points: With the overrides applied.
        overrides: What the command line set: it goes before the `sae:` defaults, and is never dropped with them.

    Raises:
        UserError: naming the file and point, for a key or a value that a class does not take.
    """
    from saelight.sweep.plan.sae_checks import Checker, drop_unknown  # torch

    resolved = Resolved([], {}, {}, [])
    checkers: dict[str, Checker] = {}
    by_settings: dict[str, str] = {}
    by_hash: dict[str, Entry] = {}
    dropped: dict[str, int] = {}
    for point in points:
        where = f"{sweep.file}: {point.name}"
        outer = configs.canonical({k: v for k, v in point.settings.items() if not k.startswith("sae.")})
        if outer not in by_settings:
            config = configs.outside(sweep.base, point.settings)
            if sweep.halving:
                configs.add_callback(config, sweep.halving)
            check_keys(config, where)
            key = by_settings[outer] = configs.digest(config)
            resolved.outsides[key] = config
            facts = resolved.facts[key] = read_data(config)
            checkers[key] = Checker(facts.d_in, facts.d_out)
        key = by_settings[outer]
        own = {k.removeprefix("sae."): v for k, v in point.settings.items() if k.startswith("sae.")}
        plain = {k.removeprefix("sae."): v for k, v in sweep.sae.items()}
        defaults, lacking = drop_unknown(plain, own, where)
        for field in lacking:
            dropped[field] = dropped.get(field, 0) + 1
        sae = configs.sae({f"sae.{k}": v for k, v in defaults.items()}, point.settings)
        checked = checkers[key].check(sae, where)
        entry = _entry(sweep, point, sae, key, checked, resolved.outsides[key], resolved.facts[key])
        if entry.hash in by_hash:
            by_hash[entry.hash].names.append(point.name)
        else:
            by_hash[entry.hash] = entry
            resolved.entries.append(entry)
    for field, n in dropped.items():
        resolved.notes.append(f"the default sae.{field} is dropped for {n} points, whose class has no such field")
    if missing := [facts.missing for facts in resolved.facts.values() if facts.missing]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        resolved.notes.append(f"{missing[0]}{more}; until then points are checked without its width, and nothing runs")
    return resolved


def _entry(
    sweep: Sweep, point: Point, sae: dict[str, Any], key: str, checked, outside: dict[str, Any], facts: DataFacts
) -> Entry:
    spec = checked.config.spec()
    seed = spec["init_args"].pop("seed")
    identity = {"sae": spec, "data": facts.identity, "training": training_identity(outside)}
    if seed is not None:
        identity["seed"] = seed
    base_seed = (outside.get("model") or {}).get("seed", 0)
    if not isinstance(base_seed, int):
        raise UserError(f"{sweep.file}: model.seed must be a whole number, got {base_seed!r}")
    return Entry(
        hash=configs.digest(identity),
        name=point.name,
        names=[point.name],
        seed=base_seed + point.index if seed is None else seed,
        settings=point.settings,
        sae={k: v for k, v in sae.items() if k != "seed"},
        outside=key,
        variant=type(checked.config).__name__,
        d_sae=checked.d_sae,
        parameters=checked.parameters,
        memory=list(sae_bytes(checked.config, checked.parameters, checked.d_sae, facts.batch_size)),
        row_bytes=facts.row_bytes,
    )


def run_tokens(outside: dict[str, Any]) -> int | None:
    """Tokens a run of this config trains on, as far as it tells."""
    return tokens(outside, read_data(outside))
