"""Refuse to go on from a checkpoint of another configuration."""

from typing import Any

from saelight.errors import UserError


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted keys."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): list(value) if isinstance(value, tuple) else value}


def check_same_config(checkpoint: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise `UserError` naming the first setting in which `config` differs from the checkpoint's hyper-parameters."""
    expected, got = flatten(checkpoint, "model"), flatten(config, "model")
    for key in sorted(expected.keys() | got.keys()):
        if key.startswith("model._"):
            continue
        if key not in got or key not in expected or expected[key] != got[key]:
            raise UserError(
                f"the checkpoint was made with another config: {key} is {expected.get(key, 'absent')!r} there and "
                f"{got.get(key, 'absent')!r} here; resume with the same config, or start a new run without --ckpt_path"
            )
