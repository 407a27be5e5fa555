"""Rows that a config describes: what a fit trains on, or a harvest writes. A model that makes them has not run yet."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from saelight.data import sources
from saelight.data.foreign.opening import open_rows
from saelight.data.harvest.harvest_settings import HarvestSettings
from saelight.data.source import Rows, sides
from saelight.errors import UserError, did_you_mean
from saelight.parsing.config_files import read_mapping
from saelight.parsing.messages import explain

_SUFFIXES = (".yaml", ".yml")
_T = TypeVar("_T")


def is_config(data: str) -> bool:
    """Whether `data` names a config."""
    return data.endswith(_SUFFIXES)


def rows_of_config(path: str, hook: str | None) -> tuple[str, Rows]:
    """The rows that a fit's or a harvest's config describes, and what to call them.

    Args:
        hook: Which, of several that a harvest writes. None: not known.

    Raises:
        UserError: for a config that is neither's, or of several hooks and not this one; and as what it describes does.
    """
    settings = read_mapping(path)
    if isinstance(settings.get("data"), Mapping):
        return rows_of_fit(settings["data"], path)
    hooks, out = settings.get("hooks"), settings.get("out")
    if not isinstance(hooks, list) or not hooks:
        raise UserError(
            f"{path} is no config of a fit (data) or of a harvest (model, files, hooks): see shards harvest --help"
        )
    folders = {str(name): Path(str(out)) / str(name) if len(hooks) > 1 else Path(str(out)) for name in hooks}
    if len(folders) > 1 and hook not in folders:
        raise UserError(f"{path} is of {', '.join(folders)}, the SAE is of {hook or 'an unknown hook'}: leave one in hooks")
    chosen = hook if hook in folders else next(iter(folders))
    if out and folders[chosen].exists():
        return str(folders[chosen]), open_rows(str(folders[chosen]))
    from saelight.data.harvest.text_pass import pass_of_harvest

    return path, pass_of_harvest(_made(HarvestSettings, {"out": path} | settings, path), chosen)


def rows_of_fit(spec: Mapping[str, Any], config: str | Path) -> tuple[str, Rows]:
    """The rows that a fit's `data` section describes, and what to call them."""
    if not isinstance(class_path := spec.get("class_path"), str):
        raise UserError(f"{config} names no data: give --data PATH")
    declared = sources.find(class_path)
    if declared is None:
        raise UserError(f"{class_path} of {config} does not say what rows it has: give --data PATH")
    fields = spec.get("init_args") or {}
    if not isinstance(fields, Mapping):
        raise UserError(f"{config}: init_args of data are settings by name")
    from saelight.data.model_source import ModelSource

    source = _made(declared, fields, config)
    rows = source.once() if isinstance(source, ModelSource) else sides(source.opened.rows)[0]
    return str(fields.get("path", class_path.rpartition(".")[2])), rows


def _made(kind: type[_T], fields: Mapping[str, Any], config: str | Path) -> _T:
    """An object of settings, whose names and types are looked at."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]  # all are dataclasses
    for key in fields:
        if key not in names:
            raise UserError(f"{config}: unknown key {str(key)!r}{did_you_mean(str(key), names)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "of", fail_untyped=False)
    try:
        parsed = parser.parse_object({"of": dict(fields)}).of.as_dict()
    except ArgumentError as error:
        raise UserError(f"{config}: {explain(str(error), []).replace('of.', '')}") from None
    return kind(**parsed)
