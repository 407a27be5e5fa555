"""What a sweep file's values have to be, refused in a line that says where they stand."""

from collections.abc import Collection
from typing import Any

from saelight.errors import UserError, did_you_mean


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value`, or `UserError` when it is no mapping."""
    if not isinstance(value, dict):
        raise UserError(f"{where.rstrip('.: ')}: expected a mapping, got {value!r}")
    return value


def text(name: Any, where: str) -> str | None:
    """A name as text, numbers too; None for none. Raises `UserError`."""
    if name is not None and not isinstance(name, str | int | float):
        raise UserError(f"{where}name: expected text, got {name!r}")
    return None if name is None else str(name)


def one_of(value: Any, known: tuple[str, ...], where: str) -> str:
    """`value`, or `UserError` when it is none of `known`."""
    if value not in known:
        raise UserError(f"{where} must be one of {', '.join(known)}, got {value!r}{did_you_mean(str(value), known)}")
    return str(value)


def refuse_unknown(content: dict[str, Any], known: Collection[str], where: str) -> None:
    """Raise `UserError` for a key that is none of `known`."""
    for key in content:
        if key not in known:
            near = did_you_mean(str(key), known) or f"; known: {', '.join(sorted(known))}"
            raise UserError(f"{where.rstrip('.: ')}: unknown key {key!r}{near}")
