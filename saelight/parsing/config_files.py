"""A training's config, from one file or several: plain data, read and merged before any class is looked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.parsing import yaml_files
from saelight.parsing.wrong_file import refuse_python, refuse_sweep
from saelight.ranges import short

SECTIONS = ("trainer", "model", "data")
"""The groups of a config's keys."""
_ANCHORS = "x-"
_FROM_DATA = ("d_in", "d_out")
_SPEC = "name: {class_path: ..., init_args: {...}}"


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The settings of any command's config file, by name. Raises `UserError` for one that holds none."""
    refuse_python(path)
    content = yaml_files.read(path)
    if isinstance(content, Mapping):
        return dict(content)
    kind = "is empty" if content is None else f"holds a {type(content).__name__}"
    raise UserError(f"{path} {kind}: a config has settings by name")


def read(path: str | Path) -> dict[str, Any]:
    """What a training's config file holds, without keys that begin with `x-`: they hold what aliases refer to.

    Raises:
        UserError: for a file that is no config, and for settings that nothing would heed.
    """
    config = {key: value for key, value in read_mapping(path).items() if not key.startswith(_ANCHORS)}
    refuse_sweep(path, config)
    for section in SECTIONS:
        if section in config and not isinstance(config[section], Mapping | str):
            raise UserError(f"{path}: {section} holds no settings: give them, or drop the line")
    model = config.get("model")
    if isinstance(model, Mapping):
        _check_model(model, path)
    return config


def _check_model(model: Mapping[str, Any], path: str | Path) -> None:
    for name in _FROM_DATA:
        if model.get(name) is not None:
            raise UserError(f"{path}: model.{name} is what the data have, which say it themselves: drop it")
    saes = model.get("saes")
    if saes is not None and not isinstance(saes, Mapping):
        raise UserError(f"{path}: model.saes holds no SAEs by name: write {_SPEC}")
    for name, spec in (saes or {}).items():
        _check_sae(spec, f"{path}: model.saes.{name}")


def _check_sae(spec: Any, where: str) -> None:
    """Raise `UserError` for what has not the shape of an SAE's configuration: a parser says nothing clear of it."""
    if spec is None or isinstance(spec, str):
        return
    if not isinstance(spec, Mapping):
        raise UserError(f"{where} holds {short(spec)}: write {_SPEC}")
    fields = spec.get("init_args", {})
    if not isinstance(spec.get("class_path", ""), str) or not isinstance(fields, Mapping):
        raise UserError(f"{where}: class_path is a text, init_args are settings by name: write {_SPEC}")
    if not isinstance(fields.get("schedule", {}), Mapping):
        raise UserError(
            f"{where}.init_args.schedule holds {short(fields['schedule'])}: write settings by name, kind: cosine"
        )
    if "base" in fields:
        _check_sae(fields["base"], f"{where}.init_args.base")


def merge_saes(before: Mapping[str, Any], config: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """`config` with the SAEs of the configs `before` it, by name: of one that stands in both, the settings given later
    hold, all of them where its class changes; null drops it.

    Raises:
        UserError: for null in place of an SAE that is not there.
    """
    model = config.get("model")
    if not isinstance(model, Mapping) or model.get("saes") is None:
        return config
    saes = dict(before)
    for name, given in model["saes"].items():
        if given is None:
            if name not in saes:
                raise UserError(f"{path}: model.saes.{name} is null, and there is no such SAE to drop")
            del saes[name]
        else:
            saes[name] = _merged(saes.get(name), given)
    return config | {"model": dict(model) | {"saes": saes}}


def _merged(before: Any, given: Any) -> Any:
    """Settings over others; a class of its own begins anew."""
    if not isinstance(before, Mapping) or not isinstance(given, Mapping):
        return given
    if "class_path" in given and _class_name(given) != _class_name(before):
        return given
    return dict(before) | {key: _merged(before.get(key), value) for key, value in given.items()}


def _class_name(spec: Mapping[str, Any]) -> str:
    return str(spec.get("class_path")).rpartition(".")[2]
