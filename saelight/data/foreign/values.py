"""How numbers are stored, and what they are read as."""

from typing import NamedTuple

import numpy as np
import torch

from saelight.errors import UserError

_FLOATS = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float32}
_NAMES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "half": "<f2", "float": "<f4", "double": "<f8"}


class Values(NamedTuple):
    """A kind of number."""

    name: str
    """As messages have it."""
    stored: np.dtype
    """The items in the file; bfloat16, which NumPy does not know, as its bits."""
    read_as: torch.dtype
    """What they become in memory. float64 is read as float32: no SAE is trained on more."""

    @property
    def as_stored(self) -> bool:
        """Whether the bytes in memory are those in the file."""
        return self.read_as == torch.bfloat16 or (self.stored.itemsize == self.read_as.itemsize and self.stored.isnative)


BFLOAT16 = Values("bfloat16", np.dtype("<u2"), torch.bfloat16)


def floats(dtype: np.dtype, place: object) -> Values:
    """Activations stored as `dtype`. Raises `UserError` for what is none, naming `place`."""
    if dtype.hasobject:
        raise UserError(f"{place} holds Python objects, which saelight never unpickles; store an array of floats")
    if (read_as := _FLOATS.get(dtype.str[1:])) is None:
        raise UserError(refusal(dtype.name if dtype.kind != "V" else dtype.str, place))
    return Values(dtype.name, dtype, read_as)


def floats_named(name: str, place: object) -> Values:
    """Activations whose dtype is a name, as torch and NumPy write it. Raises `UserError` as `floats` does."""
    name = name.removeprefix("torch.")
    if name == "bfloat16":
        return BFLOAT16
    if name not in _NAMES:
        raise UserError(refusal(name, place))
    return floats(np.dtype(_NAMES[name]), place)


def refusal(name: str, place: object) -> str:
    """The line for numbers that are no activations."""
    if name.startswith(("int", "uint", "bool")):
        return (
            f"{place} holds {name}: quantised activations need their scales, and whole numbers are none; write them as "
            "float32 with saelight.ShardWriter (docs/data.md)"
        )
    return (
        f"{place} holds {name}; activations are float16, bfloat16, float32 or float64: write them as one of these with "
        "saelight.ShardWriter (docs/data.md)"
    )


def whole(dtype: np.dtype, read_as: torch.dtype) -> Values | None:
    """A column stored as `dtype`, in memory as `read_as`; None for what are no whole numbers."""
    return Values(dtype.name, dtype, read_as) if dtype.kind in "iu" else None
