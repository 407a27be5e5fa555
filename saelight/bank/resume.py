"""Refuse to go on from a checkpoint of another configuration."""

import importlib
from typing import Any

from jsonargparse import Namespace

from saelight.errors import UserError


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and namespaces as one dict of dotted keys."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}").items()}
    if prefix.endswith(".class_path"):
        value = _home(value)
    return {prefix: list(value) if isinstance(value, tuple) else value}


def _home(class_path: str) -> str:
    """The module and name a class is defined by: it may be imported from several places."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return f"{cls.__module__}.{cls.__qualname__}"


def check_same_config(checkpoint: Any, config: Any) -> None:
    """Raise `UserError` naming the first setting in which `config` differs from the checkpoint's hyper-parameters."""
    expected, got = flatten(checkpoint, "model"), flatten(config, "model")
    for key in sorted(expected.keys() | got.keys()):
        there, here = expected.get(key, "absent"), got.get(key, "absent")
        if there != here and not key.startswith("model._"):
            raise UserError(
                f"the checkpoint was made with another config: {key} is {there!r} there and {here!r} here; resume with the "
                "same config, or start a new run without --ckpt_path"
            )
