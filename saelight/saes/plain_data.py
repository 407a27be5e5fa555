"""SAEs from plain data `{class_path, init_args}`, as checkpoints, exports and sweep files hold them.

Reading imports nothing: a class is one that is imported already, so that no file decides which code runs. Where a user
named the class himself, `find` may import it.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from inspect import isabstract
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from saelight.errors import UserError, did_you_mean
from saelight.saes.common_fields import class_path
from saelight.saes.sae import SAEConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Find = Callable[[str], type[SAEConfig]]
"""From a class path to the class; raises `UserError`."""
_T = TypeVar("_T", bound="DataclassInstance")
_SHOWN = 80  # characters of a wrong value
_LIKE_ANOTHER_TYPE = re.compile(r"[-+.]?\d.*|null|true|false|", re.IGNORECASE)


def variants() -> list[type[SAEConfig]]:
    """The configs of all variants that are imported, saelight's and others."""
    found: list[type[SAEConfig]] = []
    kinds = SAEConfig.__subclasses__()
    while kinds:
        kind = kinds.pop(0)
        found += [] if isabstract(kind) else [kind]
        kinds += kind.__subclasses__()
    return found


def imported(path: str) -> type[SAEConfig]:
    """The variant that `path` (module and name, as `class_path` gives them) names, if its module is imported."""
    known = {class_path(kind): kind for kind in variants()}
    if path in known:
        return known[path]
    module = path.rpartition(".")[0]
    names_module = module.replace(".", "").isidentifier() and len(module) <= _SHOWN
    if not names_module or module.startswith("saelight."):
        raise UserError(f"no SAE class {_shown(path)!r}{did_you_mean(path, known)}")
    raise UserError(f"no SAE class {path!r} is imported: import the module that defines it first (`import {module}`)")


def from_spec(spec: Any, find: Find = imported) -> SAEConfig:
    """The config that `spec` describes, every value of the type that its field has.

    Raises:
        UserError: for a class that `find` refuses, and for a field or value that the class does not take.
    """
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if (
        not isinstance(spec, dict)
        or not isinstance(spec.get("class_path"), str)
        or spec.keys() - {"class_path", "init_args"}
    ):
        raise UserError(f"an SAE is written {{class_path: ..., init_args: {{...}}}}, got {_shown(spec)}")
    return configure(find(spec["class_path"]), spec.get("init_args") or {}, find)


def configure(kind: type[_T], values: dict[str, Any], find: Find = imported, prefix: str = "") -> _T:
    """An object of this dataclass from plain values of its fields; the others keep their defaults. Raises `UserError`, which
    names a field after `prefix`."""
    given = _converted(kind, values, prefix, find)
    missing = [prefix + f.name for f in fields(kind) if f.name not in given and f.default is f.default_factory is MISSING]
    if missing:
        raise UserError(f"{kind.__name__} needs {', '.join(missing)}")
    return kind(**given)


def _converted(kind: type, values: dict[str, Any], prefix: str, find: Find) -> dict[str, Any]:
    """The fields of a dataclass, by name, from plain values."""
    if not isinstance(values, dict):
        raise UserError(f"{kind.__name__}: expected its fields by name, got {_shown(values)}")
    hints, given = _hints(kind), {}
    known = {f.name: f for f in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{kind.__name__} has no field {_shown(name)!r}{did_you_mean(str(name), known)}")
        f = known[name]
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        given[name] = as_type(value, hints[name], prefix + name, find, default)
    return given


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def as_type(value: Any, hint: Any, name: str, find: Find = imported, default: Any = None) -> Any:
    """`value` as what `hint` asks for. A dataclass that stands in part keeps the rest of its default. Raises `UserError`,
    beginning with `name`, for a value of another type."""
    origin, members = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        # The value's own type first: 5 stays an int where it may be a float too.
        for member in sorted(members, key=lambda member: member is not type(value)):
            try:
                return as_type(value, member, name, find, default)
            except UserError:
                continue
    elif origin is Literal:
        if any(value == member and type(value) is type(member) for member in members):
            return value
        raise UserError(
            f"{name}: expected {_in_words(hint)}, got {_shown(value)}{did_you_mean(str(value), map(str, members))}"
        )
    elif origin is tuple and isinstance(value, list | tuple):
        each = members[:1] * len(value) if members[1:] == (...,) else members
        if len(each) == len(value):
            return tuple(as_type(v, member, name, find) for v, member in zip(value, each, strict=True))
    elif origin is list and isinstance(value, list | tuple):
        return [as_type(v, members[0], name, find) for v in value]
    elif origin is dict and isinstance(value, dict):
        return {as_type(k, members[0], name, find): as_type(v, members[1], name, find) for k, v in value.items()}
    elif hint is NoneType and value is None:
        return None
    elif is_dataclass(hint) and isinstance(value, dict | str):
        return _nested(value, hint, name, find, default)
    elif isinstance(value, bool):
        if hint is bool:
            return value
    elif hint is float and isinstance(value, Real):
        with suppress(OverflowError):  # of an integer with hundreds of digits
            return float(value)
    elif hint is int and isinstance(value, Integral):
        return int(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise UserError(f"{name}: expected {_in_words(hint)}, got {_shown(value)}")


def _nested(value: dict[str, Any] | str, hint: Any, name: str, find: Find, default: Any) -> Any:
    if isinstance(value, dict) and "class_path" not in value and isinstance(default, hint):
        values = value.get("init_args", value) if isinstance(default, SAEConfig) else value
        return replace(default, **_converted(type(default), values, f"{name}.", find))
    if issubclass(hint, SAEConfig):
        try:
            config = from_spec(value, find)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        if isinstance(config, hint):
            return config
    elif isinstance(value, dict):
        return configure(hint, value, find, f"{name}.")
    raise UserError(f"{name}: expected {_in_words(hint)}, got {_shown(value)}")


def _in_words(hint: Any) -> str:
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, members))
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    if hint is NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) and not members else str(hint)


def _shown(value: Any) -> str:
    """A wrong value in a message: text that reads like a number in quotes, and of a long value its beginning."""
    plain = not isinstance(value, str) or (value.isprintable() and not _LIKE_ANOTHER_TYPE.fullmatch(value))
    text = " ".join(str(value).split()) if plain else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
