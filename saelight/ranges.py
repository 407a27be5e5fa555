"""What values a setting takes: declared beside its type, shown by --help, and checked in one place.

    lr: Annotated[float | None, Range(above=0, most=10)] = None
    warmup: Annotated[Time, Duration(whole=False)] = 0.01

A bound is there to refuse nonsense, not to choose for anybody: far from all that has been of use.
"""

import inspect
import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from saelight.errors import UserError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
LONGEST = 10**15
"""Steps, tokens and rows: more than any training has."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Range:
    """The numbers from a lower to an upper bound; infinity and NaN are never among them. Of a sequence: each item's."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def check(self, name: str, value: Any) -> None:
        """Raise `UserError`, which names the setting, for a value outside. None is the type's to allow."""
        if isinstance(value, list | tuple):
            for item in value:
                self.check(name, item)
        elif value is not None and not (_is_number(value) and self._holds(value)):
            raise UserError(f"{name} must be {self._words(value)}, got {short(value)}")

    def _words(self, value: Any) -> str:
        """The range, or of a wide one the bound that `value` breaks."""
        if not _is_number(value) or value != value or self._span <= 1:
            return repr(self)
        low = value < self.least or value <= self.above
        return repr(Range(least=self.least, above=self.above) if low else Range(most=self.most, below=self.below))

    @property
    def _span(self) -> float:
        return min(self.most, self.below) - max(self.least, self.above)

    def _holds(self, value: Any) -> bool:
        within = self.least <= value <= self.most and self.above < value < self.below
        return within and (isinstance(value, Integral) or math.isfinite(value))

    def __repr__(self) -> str:
        low, high = max(self.least, self.above), min(self.most, self.below)
        if math.isinf(low) or math.isinf(high):
            words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
            return " and ".join(f"{word} {bound:.10g}" for word, bound in words.items() if math.isfinite(bound)) or "finite"
        left, right = "[" if low > self.above else "(", "]" if high < self.below else ")"
        return f"in {left}{low:.10g}, {high:.10g}{right}"


SEED = Range(least=0, most=2**63 - 1)


@dataclass(frozen=True, kw_only=True, repr=False)
class Duration:
    """Lengths of time (`schedules.Time`), of a sequence each item's."""

    zero: bool = True
    """Whether it may be no time at all."""
    whole: bool = True
    """Whether it may be the whole of training."""

    def check(self, name: str, value: Any) -> None:
        """Raise `UserError`, which names the setting, for what is no such length. None is the type's to allow."""
        if isinstance(value, list | tuple):
            for item in value:
                self.check(name, item)
        elif value is not None and not self._holds(value):
            raise UserError(f"{name}: {short(value)} is no length of time; write {self}")

    def _holds(self, value: Any) -> bool:
        if isinstance(value, Mapping):
            units = [n for unit, n in value.items() if unit in ("epochs", "tokens") and _is_number(n)]
            return len(units) == len(value) == 1 and self._long_enough(units[0]) and units[0] <= LONGEST
        if not _is_number(value) or not self._long_enough(value):
            return False
        if isinstance(value, Integral):
            return value <= LONGEST
        return value <= 1 if self.whole else value < 1

    def _long_enough(self, n: Any) -> bool:
        return n >= 0 if self.zero else n > 0

    def __repr__(self) -> str:
        fractions = ("[0, 1" if self.zero else "(0, 1") + ("]" if self.whole else ")")
        least = "n >= 0" if self.zero else "n > 0"
        return f"an int (steps), a float in {fractions} (fraction of training), {{epochs: n}} or {{tokens: n}}, {least}"


def checked(name: str, value: Any, hint: Any) -> Any:
    """`value` as the annotation `hint` wants it: whole numbers become floats for a float, paths text for a `str`.

    Annotations beyond plain ones, literals and unions of these are checked by their range alone, where they have one.

    Raises:
        UserError: naming `name`, for a value of another kind, or out of its range.
    """
    hint, *bounds = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = all(option in _KINDS or get_origin(option) is Literal for option in options)
    if plain and not any(_is_of(value, option) for option in options):
        words = [w for o in options for w in (map(str, get_args(o)) if get_origin(o) is Literal else [_KINDS[o]])]
        raise UserError(f"{name} must be {' or '.join(words)}, got {short(value)}")
    for bound in bounds:
        if isinstance(bound, Range | Duration):
            bound.check(name, value)
    return _converted(value, options) if plain else value


def check_fields(settings: Any, prefix: str = "") -> None:
    """Raise `UserError` for the first field of a dataclass whose value is not what is declared; `prefix` goes before its
    name."""
    hints = hints_of(settings.__class__)
    for field in fields(settings):
        checked(prefix + field.name, getattr(settings, field.name), hints[field.name])


def check_arguments(function: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    """The same for arguments of a function, by name."""
    hints = hints_of(function)
    for name, value in values.items():
        checked(prefix + name, value, hints[name])


@cache
def hints_of(declared: Hashable) -> dict[str, Any]:
    """The annotations of a dataclass's fields, or of a function's arguments, their ranges among them."""
    if not isinstance(declared, type):
        return get_type_hints(declared, include_extras=True)
    hints: dict[str, Any] = {}
    for base in reversed(declared.__mro__):
        if "__dataclass_fields__" in vars(base):
            hints |= inspect.get_annotations(base, eval_str=True)
    return hints


def short(value: Any) -> str:
    """A value in a message: not more of it than a line takes."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text):,} characters)"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_of(value: Any, option: Any) -> bool:
    if get_origin(option) is Literal:
        return any(value == known and type(value) is type(known) for known in get_args(option))
    if option is bool or option is NoneType:
        return isinstance(value, option)
    if option is str:
        return isinstance(value, str | os.PathLike)
    return _is_number(value) and (option is float or isinstance(value, Integral))


def _converted(value: Any, options: tuple[Any, ...]) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if _is_number(value):
        return int(value) if int in options and isinstance(value, Integral) else float(value)
    return value
