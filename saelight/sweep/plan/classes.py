"""Classes that a config names, callbacks and data modules, and their settings spelt out: without Lightning for saelight's
own, which have declarations; whatever else a config names is imported.
"""

import importlib
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser

from saelight.callbacks.declarations import DECLARED, OBSERVING
from saelight.data import sources
from saelight.data.source import Source
from saelight.errors import UserError, did_you_mean
from saelight.parsing.messages import explain

_LIGHTNING = ("", "lightning.pytorch.callbacks", "pytorch_lightning.callbacks")


class Named(NamedTuple):
    """A callback and its settings."""

    path: str
    """Where the class is defined, or its short name if it is saelight's own."""
    settings: dict[str, Any]
    """All of them, defaults too, as plain data."""
    affects_weights: bool


def read_callback(spec: Any, where: str) -> Named:
    """A callback of `trainer.callbacks`, a class path or `{class_path, init_args}`. Raises `UserError`."""
    path, given = _parts(spec, where)
    module, _, name = path.rpartition(".")
    if name in OBSERVING and module in _LIGHTNING:
        # Lightning is not imported to see that its progress bar is well configured.
        return Named(name, given, affects_weights=False)
    if name in DECLARED and module.partition(".")[0] in ("", "saelight"):
        declared = DECLARED[name]
        settings = _settings(declared, given, where, name)
        try:
            checked = declared(**settings)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return Named(name, {key: getattr(checked, key) for key in settings}, declared.affects_weights)
    cls = imported(path if module else f"{_LIGHTNING[1]}.{name}")
    if cls is None:
        near = did_you_mean(name, [*DECLARED, *OBSERVING])
        raise UserError(f"{where}: no callback {path!r}{near or '; name it by its whole class path'}")
    # What a class of the user's may do nobody knows, unless it says so itself: what it derives from cannot know either.
    return Named(_home(cls), _settings(cls, given, where, name), bool(vars(cls).get("affects_weights", True)))


class Undescribed(NamedTuple):
    """Data that nothing is known of before they are trained on."""

    path: str
    """Where the data module is defined."""
    settings: dict[str, Any]
    """As the config gives them."""
    missing: list[str]
    """What the config has yet to say, where that is why."""


def read_source(data: dict[str, Any], where: str) -> Source | Undescribed:
    """The declaration of a config's data, made but not opened; or what the config says, of a data module that declares
    nothing, or while a setting without a default is not given. Raises `UserError`."""
    path, given = _parts({"class_path": "ActivationDataModule"} | data, f"{where}: data")
    if not is_dotted(path):
        raise UserError(f"{where}: no data module {path[:80]!r}: name one of saelight's, or its whole class path")
    cls = sources.find(path)
    if cls is None:
        foreign = imported(path)
        return Undescribed(path if foreign is None else _home(foreign), given, [])
    required = [f for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [
        f"data.{f.name} is not set: give it in the base, or as --set data.{f.name}=..."
        for f in required
        if given.get(f.name) is None
    ]:
        return Undescribed(_home(cls), given, lacking)
    settings = _settings(cls, given, where, "data")
    try:
        return cls(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def imported(path: str) -> type | None:
    """The class at a dotted path; None where there is none."""
    module, _, name = path.rpartition(".")
    if not is_dotted(module):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def is_dotted(module: str) -> bool:
    """Whether this can be the name of a module."""
    return all(part.isidentifier() for part in module.split("."))


def _parts(spec: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise UserError(f"{where}: expected {{class_path: ..., init_args: ...}}, got {spec!r}")
    given = spec.get("init_args") or {}
    if not isinstance(given, dict):
        raise UserError(f"{where}: init_args: expected a mapping, got {given!r}")
    return spec["class_path"], {str(key): value for key, value in given.items()}


def _home(cls: type) -> str:
    """The module and name a class is defined by: it may be imported from several places."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _settings(cls: type, given: dict[str, Any], where: str, owner: str) -> dict[str, Any]:
    """What `cls` is built with: the given settings, parsed to the types it declares, and its defaults; plain data.

    Args:
        owner: What error messages call a setting's owner, as `data` in `data.path`.
    """
    parser = _parser(cls)
    known = parser.get_defaults().get("of")
    names = set() if known is None else set(vars(known))
    for key in given:
        if key not in names:
            raise UserError(f"{where}: unknown key '{owner}.{key}'{did_you_mean(key, names)}")
    try:
        parsed = parser.parse_object({"of": given})
    except ArgumentError as error:
        raise UserError(f"{where}: {explain(str(error), []).replace('of.', f'{owner}.')}") from None
    return parsed.of.as_dict() if names else {}


@cache
def _parser(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "of", fail_untyped=False)
    return parser
