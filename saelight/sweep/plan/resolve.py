"""A sweep's points resolved: each with its SAE's config, the config of its run, its identity and its size.

The only way in to the checks against the real classes, which need torch: import it where points are checked.
"""

from typing import Any, NamedTuple

from saelight.data.source import Description, Source
from saelight.errors import UserError
from saelight.run import config_keys
from saelight.run.memory import needs
from saelight.sweep.plan import configs, identity
from saelight.sweep.plan.classes import read_source
from saelight.sweep.plan.entry import Entry, Resolved
from saelight.sweep.plan.length import tokens
from saelight.sweep.plan.metric import check_measured
from saelight.sweep.plan.points import Point
from saelight.sweep.plan.sae_checks import CheckedSAE, Checker, drop_unknown
from saelight.sweep.plan.spec import Sweep


class _Run(NamedTuple):
    """What the points of one run config share."""

    key: str
    config: dict[str, Any]
    data: Description | None
    """None where data cannot be read yet, or do not describe themselves."""
    identity: dict[str, Any]


def resolve(sweep: Sweep, points: list[Point], overrides: dict[str, Any] | None = None) -> Resolved:
    """Check every point against the real classes, and find those that are the same.

    Args:
        sweep: Whose base and defaults the points complete.
        points: With the overrides applied.
        overrides: What the command line set: it goes before the `sae:` defaults, and is never dropped with them.

    Raises:
        UserError: naming the file and point, for a key or a value that a class does not take.
    """
    resolved = Resolved()
    runs: dict[str, _Run] = {}
    checkers: dict[str, Checker] = {}
    by_hash: dict[str, Entry] = {}
    dropped: dict[str, int] = {}
    for point in points:
        where = f"{sweep.file}: {point.name}"
        shared = configs.canonical({k: v for k, v in point.settings.items() if not k.startswith("sae.")})
        if shared not in runs:
            run = runs[shared] = _run(sweep, point, where, resolved)
            resolved.run_configs[run.key] = run.config
            checkers[shared] = Checker(run.data and run.data.d_in, run.data and run.data.d_out)
        own = {k.removeprefix("sae."): v for k, v in point.settings.items() if k.startswith("sae.")}
        plain = {k.removeprefix("sae."): v for k, v in sweep.sae.items()}
        defaults, lacking = drop_unknown(plain, own, where)
        for name in lacking:
            dropped[name] = dropped.get(name, 0) + 1
        sae = configs.sae({f"sae.{k}": v for k, v in defaults.items()}, point.settings)
        entry = _entry(sweep, point, sae, checkers[shared].check(sae, where), runs[shared])
        if entry.hash in by_hash:
            by_hash[entry.hash].names.append(point.name)
        else:
            by_hash[entry.hash] = entry
            resolved.entries.append(entry)
    for name, n in dropped.items():
        resolved.notes.append(f"the default sae.{name} is dropped for {n} points, whose class has no such field")
    if missing := resolved.missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        resolved.notes.append(f"{missing[0]}{more}; until then points are checked without its width, and nothing runs")
    return resolved


def _run(sweep: Sweep, point: Point, where: str, resolved: Resolved) -> _Run:
    """The run of a point, its data described. What cannot be read yet is noted in `resolved`."""
    config = configs.run_config(sweep.base, point.settings)
    configs.check_sections(config, where)
    identity.check_keys(config, where)
    if sweep.halving:
        configs.add_callback(config, sweep.halving)
    data = read_source(config.get("data") or {}, where)
    description = None
    if not isinstance(data, Source):
        resolved.missing += data.missing
    else:
        try:
            description = data.describe()
        except UserError as error:
            resolved.missing.append(str(error))
        else:
            if sweep.judged:
                check_measured(sweep.metric, config_keys.effective(config["trainer"]), data.opened, where)
    return _Run(configs.digest(config), config, description, identity.of_run(config, data, where))


def _entry(sweep: Sweep, point: Point, sae: dict[str, Any], checked: CheckedSAE, run: _Run) -> Entry:
    seed = checked.config.seed
    base_seed = (run.config.get("model") or {}).get("seed", 0)
    if not isinstance(base_seed, int):
        raise UserError(f"{sweep.file}: model.seed must be a whole number, got {base_seed!r}")
    precision = config_keys.effective(run.config.get("trainer") or {})["precision"]
    memory = needs(checked.config, checked.parameters, checked.d_sae, run.data, precision)
    return Entry(
        hash=configs.digest({"sae": identity.of_sae(checked), "run": run.identity}),
        name=point.name,
        names=[point.name],
        seed=base_seed + point.index if seed is None else seed,
        settings=point.settings,
        sae={k: v for k, v in sae.items() if k != "seed"},
        run_config=run.key,
        variant=type(checked.config).__name__,
        d_sae=checked.d_sae,
        parameters=checked.parameters,
        memory={kind: list(of) for kind, of in memory.items()},
        tokens=tokens(run.config, run.data),
    )
