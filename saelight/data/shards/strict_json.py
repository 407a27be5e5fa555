"""JSON that other tools read alike, checked against a declared schema: what is wrong with it, in one line."""

import json
import math
from collections import Counter
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_DEPTH = 32
"""Lists and objects inside each other. No format of ours goes deeper, and what handles the values recurses."""
_SHOWN = 60


def parse(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises `ValueError` with one line for what is no JSON, for what readers of JSON take differently (NaN, numbers beyond
    float64, a key twice in one object, halves of characters), and for nesting deeper than 32.
    """
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate)") from None
    return value


def validated(schema: TypeAdapter[T], value: Any) -> T:
    """`value`, which is of `schema`. Raises `ValueError` with one line that names the first place that is not."""
    try:
        return schema.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = shown(".".join(map(str, first["loc"])))[1:-1]
    if first["type"] == "missing":
        why = f"lacks {place}"
    elif first["type"] == "value_error":
        why = f"{place}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    else:
        rule = first["msg"].removeprefix("Input ").replace("should", "must").replace("dictionary", "object")
        why = f"{place or 'all of it'} {rule}, it is {shown(first['input'])}"
    raise ValueError(why)


def shown(value: Any) -> str:
    """A value in a message: on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…{text[-1]}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {shown(text)} is beyond float64")
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _check_depth(value: Any) -> None:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        if (depth := depth + 1) > _DEPTH:
            raise ValueError(f"nested too deeply (more than {_DEPTH} lists and objects inside each other)")
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
