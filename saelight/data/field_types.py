"""The values of a dataclass's fields against their annotations, so that a setting from a file is refused in one line and
means the same however it is spelt (5 and 5.0)."""

import inspect
import os
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from saelight.errors import UserError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


def types_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    types: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(base):
            types |= inspect.get_annotations(base, eval_str=True)
    return types


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the annotation `hint` wants it: whole numbers become floats for a float, paths text for a `str`. Raises
    `UserError` naming `name` for a value of another kind. Annotations beyond plain ones, literals and unions of these are
    not checked."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(option not in _KINDS and get_origin(option) is not Literal for option in options):
        return value
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif option is int and isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        elif option is str and isinstance(value, str | os.PathLike):
            return os.fspath(value)
        elif option in (bool, NoneType) and isinstance(value, option):
            return value
    if float in options and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    words = [w for o in options for w in (map(str, get_args(o)) if get_origin(o) is Literal else [_KINDS[o]])]
    raise UserError(f"{name} must be {' or '.join(words)}, got {value!r}")
