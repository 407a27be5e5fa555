"""Llama Scope, read only: `hyperparams.json` and `checkpoints/final.safetensors`.

JumpReLU with one threshold for all: encoder.weight (F, D), encoder.bias (F), decoder.weight (D, F), decoder.bias (D), which
is not subtracted from the input. Rows were scaled to the norm √D by `dataset_average_activation_norm`, in and out each by
its own; the threshold is in the model's own units, as SAELens reads it too. Shapes: D d_in, F d_sae.
"""

import math
from pathlib import Path

import torch

from saelight.convert import origin
from saelight.convert.files_of_tensors import json_file, part, positive, safetensors, value
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make
from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes.provenance import Provenance

_CONFIG, _WEIGHTS = "hyperparams.json", Path("checkpoints/final.safetensors")
_MODEL = "meta-llama/Llama-3.1-8B"


def _is_one(path: Path) -> bool:
    return (path / _CONFIG).is_file() and (path / _WEIGHTS).is_file()


def _read(folder: Path) -> Parts:
    where, weights = folder / _CONFIG, folder / _WEIGHTS
    config = json_file(where)
    if (name := value(config, "act_fn", str, where, "jumprelu")) != "jumprelu":
        raise UserError(f"{where}: act_fn {name!r} is not Llama Scope's, which has jumprelu")
    if config.get("apply_decoder_bias_to_pre_encoder"):
        raise UserError(f"{where}: apply_decoder_bias_to_pre_encoder is not Llama Scope's, and is not read")
    file = safetensors(weights)
    d_sae, d_in = file.shape("encoder.weight")
    norms = part(config, "dataset_average_activation_norm")
    scale_in, scale_out = (math.sqrt(d_in) / positive(norms, side, where) for side in ("in", "out"))
    threshold = positive(config, "jump_relu_threshold", where) * scale_in
    hooks = [config.get(f"hook_point_{side}") for side in ("in", "out")]
    transcodes = hooks[1] is not None and hooks[0] != hooks[1]
    tensors = {
        "W_enc": file.take("encoder.weight", d_sae, d_in).T,
        "b_enc": file.take("encoder.bias", d_sae),
        "W_dec": file.take("decoder.weight", d_in, d_sae).T,
        "b_dec": file.take("decoder.bias", d_in),
        "threshold": torch.full((d_sae,), threshold),
    }
    file.nothing_left()
    facts = {"model": _MODEL, "dataset": "cerebras/SlimPajama-627B", "context": 1024}
    return Parts(
        config=make("JumpReLU", d_sae=d_sae),
        d_in=d_in,
        d_out=d_in if transcodes else None,
        tensors=tensors,
        subtracts_b_dec=False,
        normalisation=Normalisation("rms", scale_in),
        target_normalisation=Normalisation("rms", scale_out),
        provenance=Provenance(
            name=folder.name,
            source=origin.source("llama_scope", facts, hooks[0], None, config),
            target_source=origin.source("llama_scope", facts, hooks[1]) if transcodes else None,
        ),
        where=weights,
    )


_LAYOUT = Layout((_CONFIG, _WEIGHTS.as_posix()))
FORMAT = Format(name="llama_scope", is_one=_is_one, layouts=(_LAYOUT,), read=from_parts(_read))
