"""Operators that torch carries without promising them: where one is missing, its slower stand-in runs, with one warning."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def find_op(name: str) -> Callable[..., Any] | None:
    """The operator torch.ops.<name>, or None, saying so, if this torch has it no more."""
    namespace, operator = name.split(".")
    found = getattr(getattr(torch.ops, namespace), operator, None)
    if found is None:
        warnings.warn(f"this torch has no {name}: saelight works without it, only slower; torch 2.13 has it", stacklevel=2)
    return found
