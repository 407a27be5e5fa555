"""A sweep file, read and checked: YAML (docs/sweeps.md), or Python that defines `make_cfgs()`.

What is wrong is an error that names the file, the key and the fix, never a smaller sweep.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.errors import UserError, did_you_mean
from saelight.files import check_name
from saelight.parsing import yaml_files
from saelight.sweep.plan import configs
from saelight.sweep.plan.checks import mapping, one_of, refuse_unknown, text
from saelight.sweep.plan.distributions import Distribution, read_distribution, read_probabilities
from saelight.sweep.plan.early_end import early_end
from saelight.sweep.plan.metric import read_metric
from saelight.sweep.plan.python_file import plain, run_python

METHODS = ("grid", "random", "bayes")
_BRANCH = {"name", "parameters", "zip", "cases", "runs"}
_SETTINGS = {"base", "method", "metric", "sae", "run_cap", "early_terminate", "max_saes", "seed"}
_WANDB = {"project", "entity", "description", "program", "command"}
"""Keys of W&B's that say nothing about the points; `export-wandb` passes them on."""
ROOTS = ("sae", "data", "trainer", "model")


@dataclass(frozen=True)
class Axis:
    """Keys that move together, and what they move through: rows of values, or for one key a distribution."""

    where: str
    keys: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    distribution: Distribution | None = None
    probabilities: tuple[float, ...] | None = None
    """Of the rows, where they are not all alike."""


@dataclass(frozen=True)
class Branch:
    """A sub-sweep: axes that multiply, over a union of further branches."""

    where: str
    name: str | None
    axes: list[Axis]
    children: "list[Branch]"


@dataclass(frozen=True)
class Sweep:
    """A sweep file's whole content."""

    file: Path
    name: str
    base: dict[str, Any]
    root: Branch
    base_file: Path | None = None
    method: str = "grid"
    metric: dict[str, str] = field(default_factory=lambda: {"name": "val/fvu", "goal": "minimize"})
    sae: dict[str, Any] = field(default_factory=dict)
    """Defaults of every point's SAE, dotted."""
    run_cap: int | None = None
    halving: dict[str, Any] | None = None
    """The callback that halves groups, from `early_terminate: {type: halving, …}`."""
    pruner: dict[str, Any] | None = None
    """Settings of Optuna's Hyperband, from `early_terminate: {type: hyperband, …}`."""
    max_saes: int | None = None
    """Most SAEs in one group."""
    seed: int = 0
    """Seed of random points."""
    wandb: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What the user should know before it runs."""
    judged: bool = False
    """Whether a search, or an end before the end of training, depends on the metric."""


def read(file: str | Path) -> Sweep:
    """The sweep that `file` describes. Raises `UserError`; what a Python file raises passes through."""
    file = Path(file)
    if file.suffix == ".py":
        return _sweep(file, *run_python(file, _SETTINGS | {"name"}, (_BRANCH | _WANDB) - {"name"}))
    content = yaml_files.read(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: a sweep is a mapping with `base` and `parameters` (docs/sweeps.md)")
    return _sweep(file, content, None)


def _sweep(file: Path, content: dict[str, Any], points: list[Any] | None) -> Sweep:
    known = _BRANCH | _SETTINGS | _WANDB
    if {"model", "data"} <= content.keys() and "base" not in content:
        raise UserError(
            f"{file} is a config, and no sweep file: `saelight fit --config {file}`, or name it as a sweep's `base`"
        )
    refuse_unknown(content, known, str(file))
    if points is not None and (given := content.keys() & {"parameters", "zip", "cases", "runs"}):
        raise UserError(f"{file}: make_cfgs() and `{min(given)}` exclude each other: give one of them")
    method = one_of(content.get("method", "grid"), METHODS, f"{file}: method")
    metric = read_metric(content.get("metric"), content.get("early_terminate") is not None, f"{file}: metric")
    for key in ("run_cap", "max_saes"):
        value = content.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{file}: {key} must be a whole number of at least 1, got {value!r}")
    if method == "random" and "run_cap" not in content:
        raise UserError(f"{file}: method random has no end of its own: add `run_cap: 50`, the number of points")
    given_base = content.get("base")
    if not isinstance(given_base, str):
        raise UserError(f"{file}: no `base`: name a complete config, as `base: ../configs/minilm.yaml`")
    base_file = file.parent / given_base
    base = yaml_files.read(base_file)
    if not isinstance(base, dict) or not {"model", "data"} <= base.keys():
        raise UserError(f"{base_file} is no complete config: `saelight fit --config` needs trainer, model and data")
    configs.check_sections(base, str(base_file))
    where = f"{file}: "
    if points is not None:
        root = listed(points, f"{where}make_cfgs()")
    else:
        root = _branch({k: v for k, v in content.items() if k in _BRANCH - {"name"}}, where, {})
    if method == "grid" and (axis := next(_drawn(root), None)):
        drawn = "a distribution is" if axis.distribution else "`probabilities` are"
        raise UserError(f"{axis.where}: a grid needs `values` alone; {drawn} for method random or bayes")
    given_name = text(content.get("name"), f"{file}: ")
    name = file.stem if given_name is None else given_name
    check_name(name, f"{file}: the sweep's name")
    return Sweep(
        file=file,
        name=name,
        base=base,
        base_file=base_file,
        root=root,
        method=method,
        metric=metric,
        judged=method == "bayes" or content.get("early_terminate") is not None,
        sae={f"sae.{key}": value for key, value in flat(content.get("sae") or {}, f"{file}: sae").items()},
        wandb={key: content[key] for key in _WANDB & content.keys()},
        **early_end(content.get("early_terminate"), method, metric, f"{file}: early_terminate"),
        **{key: content[key] for key in ("run_cap", "max_saes", "seed") if content.get(key) is not None},
    )


def listed(points: list[Any], where: str) -> Branch:
    """A branch of points that are written out, as nested or dotted dicts."""
    places = [f"{where}[{i}]" for i in range(len(points))]
    runs = [_run(plain(point, place), place, {}) for point, place in zip(points, places, strict=True)]
    return Branch(where, None, [], runs)


def flat(value: Any, where: str) -> dict[str, Any]:
    """A nested mapping with dotted keys; mappings inside lists stay. Raises `UserError` when it is no mapping."""
    out: dict[str, Any] = {}
    for key, inner in mapping(value, where).items():
        if isinstance(inner, dict) and inner:
            out |= {f"{key}.{k}": v for k, v in flat(inner, f"{where}.{key}").items()}
        else:
            out[str(key)] = inner
    return out


def check_key(key: str, where: str) -> None:
    """Raise `UserError` unless `key` addresses the SAE or another part of a config."""
    root, _, rest = key.partition(".")
    if root not in ROOTS or not rest:
        near = did_you_mean(root, ROOTS) or f"; keys begin with {', '.join(f'{r}.' for r in ROOTS)} as in sae.lr"
        raise UserError(f"{where}: unknown key {key!r}{near}")
    if key.startswith("model.saes"):
        raise UserError(f"{where}: {key!r}: a sweep makes model.saes itself; a point's SAE is addressed as sae.lr, sae.k")


def _branch(content: dict[str, Any], where: str, enclosing: dict[str, str]) -> Branch:
    """Parse one level; `enclosing` has the keys swept around it, and where."""
    content = mapping(content, where)
    refuse_unknown(content, _BRANCH, where)
    axes = [
        _axis(key, spec, f"{where}parameters.{key}")
        for key, spec in dotted(mapping(content.get("parameters") or {}, f"{where}parameters"), f"{where}parameters")
    ]
    zips = content.get("zip") or []
    for i, zipped in enumerate(zips if isinstance(zips, list) else [zips]):
        axes.append(_zip(zipped, f"{where}zip[{i}]"))
    here = dict(enclosing)
    for axis in axes:
        for key in axis.keys:
            if key in enclosing or sum(key in other.keys for other in axes) > 1:
                raise UserError(
                    f"{axis.where}: {key} is swept twice (see {enclosing.get(key, where)}): give it in one place"
                )
            if len(axis.rows) > 1 or axis.distribution:
                here[key] = axis.where
    children = []
    for kind, parse in (("cases", _branch), ("runs", _run)):
        items = content.get(kind) or []
        if not isinstance(items, list):
            raise UserError(f"{where}{kind} must be a list, got {items!r}")
        for i, item in enumerate(items):
            label = item.get("name", i) if isinstance(item, dict) else i
            children.append(parse(item, f"{where}{kind}[{label}].", here))
    for kind in ("cases", "runs"):
        if kind in content and not content[kind]:
            raise UserError(f"{where}{kind} is empty: drop it, or list what it is to hold")
    return Branch(where, text(content.get("name"), where), axes, children)


def _run(content: Any, where: str, enclosing: dict[str, str]) -> Branch:
    """A branch of one point."""
    values = flat(content, where)
    for key in values.keys() & enclosing.keys():
        raise UserError(f"{where}{key}: it is swept outside (see {enclosing[key]}): give it in one place")
    name = text(values.pop("name", None), where)
    for key in values:
        check_key(key, where)
    return Branch(where, name, [Axis(where, (key,), [(value,)]) for key, value in values.items()], [])


def dotted(parameters: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """W&B's nested parameters, `{sae: {parameters: {lr: …}}}`, with dotted keys."""
    for key, spec in parameters.items():
        if isinstance(spec, dict) and spec.keys() == {"parameters"}:
            for inner, value in dotted(mapping(spec["parameters"], f"{where}.{key}"), f"{where}.{key}"):
                yield f"{key}.{inner}", value
        else:
            yield str(key), spec


def _axis(key: str, spec: Any, where: str) -> Axis:
    check_key(key, where)
    if not isinstance(spec, dict):
        fix = f"values: {spec}" if isinstance(spec, list) else f"value: {spec!r}"
        raise UserError(f"{where}: write {{{fix}}}, or min and max")
    distribution = read_distribution(spec, where)
    if distribution is not None:
        return Axis(where, (key,), [], distribution)
    refuse_unknown(spec, {"value", "values", "distribution", "probabilities"}, where)
    if "value" in spec:
        return Axis(where, (key,), [(spec["value"],)])
    values = spec["values"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: `values` must be a list with something in it, got {values!r}; one value is `value`")
    for i, value in enumerate(values):
        if value in values[:i] and not isinstance(value, bool):
            raise UserError(f"{where}: lists {value!r} twice: drop one")
    return Axis(where, (key,), [(value,) for value in values], probabilities=read_probabilities(spec, where))


def _zip(content: Any, where: str) -> Axis:
    lists = mapping(content, where)
    for key, values in lists.items():
        if key != "name":
            check_key(key, where)
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}.{key}: a zip pairs lists, got {values!r}")
    for i, name in enumerate(lists.get("name", ())):
        text(name, f"{where}[{i}].")
    if len({len(values) for values in lists.values()}) != 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
        raise UserError(f"{where}: zipped lists must be of one length: {lengths}")
    return Axis(where, tuple(lists), list(zip(*lists.values(), strict=True)))


def _drawn(branch: Branch) -> Iterator[Axis]:
    yield from (axis for axis in branch.axes if axis.distribution or axis.probabilities)
    for child in branch.children:
        yield from _drawn(child)
