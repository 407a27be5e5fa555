"""Refuse to go on from a checkpoint of another configuration."""

from typing import Any

from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted keys."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}").items()}
    return {prefix: value}


def check_same_config(checkpoint: Any, config: Any) -> None:
    """Raise `UserError` naming the first setting in which `config` differs from the checkpoint's hyper-parameters."""
    expected, got = flatten(checkpoint, "model"), flatten(config, "model")
    for key in sorted(expected.keys() | got.keys()):
        there, here = expected.get(key, "absent"), got.get(key, "absent")
        # Keys that begin with _ are Lightning's own.
        if there != here and not key.startswith("model._"):
            raise UserError(
                f"the checkpoint was made with another config: {key} is {there!r} there and {here!r} here; resume with the "
                "same config, or start a new run without --ckpt_path, from its SAEs by init_from: <run>/saes/<name>"
            )


def check_same_units(checkpoint: Normalisation, data: Normalisation) -> None:
    """Raise `UserError` when a checkpoint's SAEs were trained in units of another kind than the data's: rows are the same
    otherwise, as the stream knows."""
    if checkpoint.kind != data.kind:
        raise UserError(
            f"the checkpoint was trained with data.normalise {checkpoint.kind}, and here it is {data.kind}: resume with "
            f"{checkpoint.kind}, or start a new run from its SAEs by init_from: <run>/saes/<name>"
        )
