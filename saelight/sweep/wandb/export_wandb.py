"""`saelight sweep export-wandb`: a sweep as a file for `wandb sweep`, so that any number of `wandb agent`s train it.

W&B's sweeps know `parameters` and no more. A sweep of those goes over as it is: W&B chooses the points, and each agent run
trains one. Any other is expanded, and W&B hands out its groups: each agent run trains one, all its SAEs on shared batches.
"""

import importlib.util
from collections.abc import Iterator
from itertools import islice
from typing import Any

from saelight.errors import UserError
from saelight.files import write_text
from saelight.parsing import yaml_files
from saelight.sweep.execute.session import Request, Session
from saelight.sweep.plan.distributions import RandomChooser, read_distribution
from saelight.sweep.plan.metric import read_metric
from saelight.sweep.plan.points import Point, draw, expand
from saelight.sweep.plan.spec import Sweep, check_key, dotted
from saelight.sweep.store.sweep_folder import Index, SweepFolder
from saelight.sweep.wandb.logger_settings import settings_of

SWEEP_FILE = "sweep.yaml"
"""Of a sweep folder: what the agents read beside the parameters that W&B gives them. Its base is `base.yaml`."""
_SAID = ("name", "description", "project", "entity", "method", "metric", "run_cap", "early_terminate", "parameters")
_TRIALS = 16
"""Points drawn to check a search whose points nobody knows yet."""


def export(request: Request) -> str:
    """Write `wandb.yaml` into the sweep's folder; returns what to say. Raises `UserError`."""
    session = Session(request)
    if session.sweep is not None:
        # What is measured once, in the end, is in no log of W&B's.
        read_metric(session.sweep.metric, True, f"{session.sweep.file}: metric")
    with session.locked():
        if session.sweep is not None and _one_by_one(session.sweep, request):
            content, notes = _points(session.sweep, session.folder, request.overrides)
            lines = ["one SAE per agent run; `--max-saes N` would let N share batches"]
        else:
            content = _groups(session)
            lines, notes = [session.summary()], []
        content["command"] = [
            "${env}",
            "${interpreter}",
            "-m",
            "saelight.sweep.wandb.agent",
            str(session.folder.path),
            "${args_json_file}",
        ]
        path = session.folder.path / "wandb.yaml"
        write_text(path, yaml_files.dump(content))
    if session.sweep and (given := session.sweep.wandb.keys() & {"program", "command"}):
        notes.append(f"{', '.join(sorted(given))}: left out, agents start saelight")
    if importlib.util.find_spec("wandb") is None:
        notes.append("wandb is not installed here: pip install 'saelight[wandb]'")
    return "\n".join(
        [
            *lines,
            *(f"note: {note}" for note in notes),
            "Make the sweep once, then start agents, as many and on as many machines as you like, "
            "where saelight is installed:",
            f"  wandb sweep {path}",
            f"  wandb agent ENTITY/{content['project']}/ID    # as `wandb sweep` prints it",
        ]
    )


def _one_by_one(sweep: Sweep, request: Request) -> bool:
    """Whether W&B is to choose the points. Raises `UserError` for a search that it cannot make."""
    more = None
    if sweep.file.suffix == ".py":
        more = "make_cfgs()"
    elif found := yaml_files.read(sweep.file).keys() & {"zip", "cases", "runs"}:
        more = min(found)
    for option, given in (
        ("--filter", request.pattern),
        ("--limit", request.limit),
        ("--max-saes", request.max_saes),
        ("max_saes", sweep.max_saes),
        ("halving", sweep.halving),
    ):
        more = more or (option if given is not None else None)
    if more and sweep.method == "bayes":
        raise UserError(
            f"{sweep.file}: W&B's bayes knows neither {more} nor shared batches: drop it, search with `saelight "
            "sweep run`, or take method random with a run_cap"
        )
    return more is None


def _points(sweep: Sweep, folder: SweepFolder, overrides: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """W&B's sweep over the parameters themselves, and notes. The folder gets what the agents need beside them."""
    from saelight.sweep.plan.resolve import resolve  # torch

    raw = yaml_files.read(sweep.file)
    for key in overrides:
        check_key(key, "--set")
    parameters = dict(dotted(raw.get("parameters") or {}, ""))
    parameters = {key: _parameter(value) for key, value in parameters.items()} | {
        key: {"value": value} for key, value in overrides.items()
    }
    points = expand(sweep, overrides)[0] if sweep.method == "grid" else list(islice(_drawn(sweep, overrides), _TRIALS))
    resolved = resolve(sweep, points)
    index = folder.read() if folder.index_file.is_file() else Index(sweep.name, sweep.metric)
    # Only what earlier runs trained stays: the others are W&B's to choose.
    index.wanted = [key for group in index.groups.values() if folder.begun(group.id) for key in group.members]
    index.entries = {key: index.entries[key] for key in index.wanted}
    folder.plan(index, None, None)
    content = {key: raw[key] for key in _SAID if key in raw} | {"name": sweep.name, "metric": sweep.metric}
    content |= {"method": sweep.method, "parameters": parameters}
    write_text(folder.path / "base.yaml", yaml_files.dump(sweep.base))
    ours = {key: value for key, value in raw.items() if key not in ("program", "command")}
    write_text(folder.path / SWEEP_FILE, yaml_files.dump(ours | {"base": "base.yaml", "parameters": parameters}))
    folder.commit(index)
    return _placed(content, sweep.base), resolved.notes


def _parameter(spec: dict[str, Any]) -> dict[str, Any]:
    """W&B refuses to guess what lies between a whole number and a fraction, and what probabilities are for."""
    drawn = read_distribution(spec, "")
    if "probabilities" in spec:
        return {**spec, "distribution": "categorical_w_probabilities"}
    if drawn is None or "distribution" in spec:
        return spec
    return {"distribution": "int_uniform" if drawn.whole else "uniform", **spec}


def _drawn(sweep: Sweep, overrides: dict[str, Any]) -> Iterator[Point]:
    for i in range(sweep.run_cap or _TRIALS):
        yield Point(f"point {i}", draw(sweep.root, RandomChooser([sweep.seed, i])).settings | overrides, i)


def _groups(session: Session) -> dict[str, Any]:
    """W&B's grid over the groups that are left to train."""
    session.prepare()
    if session.index.missing:
        raise UserError(session.index.missing[0])
    session.folder.commit(session.index)
    groups = [group.id for group in session.to_run()]
    if not groups:
        raise UserError(f"{session.folder.path}: nothing is left to train: all groups have finished")
    given = session.sweep.wandb if session.sweep else {}
    content = {key: given[key] for key in _SAID if key in given} | {"name": session.index.name, "method": "grid"}
    content |= {"metric": session.index.metric, "parameters": {"group": {"values": groups}}}
    return _placed(content, next(iter(session.index.run_configs.values())))


def _placed(content: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """With the project: the sweep file's, or that of the base's own logger."""
    logger = settings_of((config.get("trainer") or {}).get("logger"))
    content = {"project": "saelight"} | {key: logger[key] for key in ("project", "entity") if logger.get(key)} | content
    return {key: content[key] for key in _SAID if key in content}
