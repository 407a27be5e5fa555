"""Gemma Scope, read only: 1 is `params.npz`, 2 is `config.json` and `params.safetensors`.

JumpReLU SAEs and transcoders: W_enc (D, F), W_dec (F, D), b_enc, b_dec, threshold (2 writes w_enc and w_dec), b_dec never
subtracted from the input; affine_skip_connection (d_in, d_out) is a skip path. SAEs of the embedding were trained on its
rows times √D, which the model's own are not. What the files do not say, their folders' names do. Shapes: D d_in, F d_sae.
"""

import math
import re
from pathlib import Path
from typing import Any

from saelight.convert import origin
from saelight.convert.files_of_tensors import Tensors, json_file, npz, safetensors
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make
from saelight.errors import UserError
from saelight.saes.provenance import Provenance

_FIRST, _SECOND, _CONFIG = "params.npz", "params.safetensors", "config.json"
_HOOKS = (
    ("transcoder", "ln2.hook_normalized"),
    ("mlp", "hook_mlp_out"),
    ("att", "attn.hook_z"),
    ("res", "hook_resid_post"),
)
"""What a repository's name tells of the place in a block."""


_TRANSCODER = re.compile(r"gemma-scope[\w.-]*-transcoders|/transcoder\w*/[^/]*layer_\d")
"""In the name of a repository of the first, and of a folder of the second."""


def _weights(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name in (_FIRST, _SECOND) else None
    return next((file for name in (_FIRST, _SECOND) if (file := path / name).is_file()), None)


def _is_one(path: Path) -> bool:
    return _weights(path) is not None


def _read(path: Path) -> Parts:
    weights = _weights(path)
    assert weights is not None  # as `_is_one` has seen
    file = npz(weights) if weights.name == _FIRST else safetensors(weights)
    prefix = "w" if "w_enc" in file else "W"
    d_in, d_sae = file.shape(f"{prefix}_enc")
    if len(shape := file.shape(f"{prefix}_dec", 3 if _is_cross_layer(file, prefix) else 2)) == 3:
        raise UserError(f"{weights} is a cross-layer transcoder, which writes to {shape[1]} layers: none here does")
    d_out = shape[1]
    tensors = {
        "W_enc": file.take(f"{prefix}_enc", d_in, d_sae),
        "W_dec": file.take(f"{prefix}_dec", d_sae, d_out),
        "b_enc": file.take("b_enc", d_sae),
        "b_dec": file.take("b_dec", d_out),
        "threshold": file.take("threshold", d_sae),
    }
    if "affine_skip_connection" in file:
        tensors["W_skip"] = file.take("affine_skip_connection", d_in, d_out)
    if "scaling_factor" in file and not (file.take("scaling_factor", d_sae) == 1).all():
        raise UserError(f"{weights}: scaling_factor has no place here: multiply it into the weights first")
    file.nothing_left()
    place = str(weights.absolute().parent)
    if "embedding" in Path(place).parts[-3:]:
        tensors["W_enc"] /= math.sqrt(d_in)
        tensors["W_dec"] *= math.sqrt(d_in)
    stated = json_file(weights.parent / _CONFIG) if weights.name == _SECOND and (weights.parent / _CONFIG).is_file() else {}
    said = bool(_TRANSCODER.search(place)) or "hf_hook_point_out" in stated
    transcodes = said or d_out != d_in or "W_skip" in tensors
    return Parts(
        config=make("JumpReLU", d_sae=d_sae, skip="W_skip" in tensors),
        d_in=d_in,
        d_out=d_out if transcodes else None,
        tensors=tensors,
        subtracts_b_dec=False,
        provenance=_provenance(weights, place, stated, transcodes),
        where=weights,
    )


def _is_cross_layer(file: Tensors, prefix: str) -> bool:
    try:
        file.shape(f"{prefix}_dec", 3)
    except UserError:
        return False
    return True


def _provenance(weights: Path, place: str, stated: dict[str, Any], transcodes: bool) -> Provenance:
    """From the config of Gemma Scope 2, else from names such as gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71."""
    model, hook, out = (stated.get(key) for key in ("model_name", "hf_hook_point_in", "hf_hook_point_out"))
    repository = re.search(r"gemma-scope-(\d+b)-(pt|it)-?(\w*)", place)
    if model is None and repository:
        model = f"gemma-2-{repository[1]}" + ("-it" if repository[2] == "it" else "")
    number = re.search(r"layer_(\d+)", place)
    if hook is None and number and repository:
        names = [name for key, name in _HOOKS if repository[3].startswith(key)]
        hook = f"blocks.{number[1]}.{names[0]}" if names else None
        out = f"blocks.{number[1]}.hook_mlp_out" if transcodes else None
    facts = {"model": model}
    return Provenance(
        name="-".join(re.findall(r"layer_\d+|width_\w+|average_l0_\d+|l0_\w+", place)) or weights.parent.name,
        source=origin.source("gemma_scope", facts, hook, None, stated),
        target_source=origin.source("gemma_scope", facts, out) if transcodes else None,
    )


_LAYOUTS = tuple(
    Layout((weights,), () if weights == _FIRST else (_CONFIG,), is_file)
    for weights in (_FIRST, _SECOND)
    for is_file in (False, True)
)
FORMAT = Format(name="gemma_scope", is_one=_is_one, layouts=_LAYOUTS, read=from_parts(_read))
