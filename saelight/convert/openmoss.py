"""OpenMOSS llamascopium (lm-saes): `config.json` and `sae_weights.safetensors`, for `SparseDictionary.from_pretrained`.

| saelight | act_fn | tensors |
|---|---|---|
| ReLU | relu | W_E (D, F), b_E (F), W_D (F, D), b_D (D) |
| JumpReLU, BatchTopK | jumprelu | + activation_function.log_jumprelu_threshold (F) |
| TopK | topk | as relu; top_k in the config |
| their transcoders of equal widths, without skip path | the same, hook_point_out another | as there |

b_D is never subtracted from the input. `sparsity_include_decoder_norm` selects by f ‖d‖. Written is `norm_activation:
inference`, everything folded. Read is `dataset-wise` too, as they are trained; a JumpReLU SAE that OpenMOSS itself has
folded fires differently from then on, since its thresholds stay behind: convert the unfolded one. Shapes: D d_in, F d_sae.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from saelight.convert import beside, origin
from saelight.convert.files_of_tensors import Tensors, json_file, positive, safetensors, torch_file, value, whole
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make, ready, refused, rows_are_unit, variant, with_norms_in_latents
from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE, SAEConfig

CONFIG, WEIGHTS = "config.json", "sae_weights"
_ENDINGS = (".safetensors", ".pt")
_THRESHOLD = "activation_function.log_jumprelu_threshold"
_NORM = "dataset_average_activation_norm."
_ACTIVATIONS: dict[str, str] = {"ReLU": "relu", "JumpReLU": "jumprelu", "BatchTopK": "jumprelu", "TopK": "topk"}


def _weights(folder: Path) -> Path | None:
    return next((path for ending in _ENDINGS if (path := folder / f"{WEIGHTS}{ending}").is_file()), None)


def _is_one(path: Path) -> bool:
    if _weights(path) is None or not (path / CONFIG).is_file():
        return False
    try:
        return "sae_type" in json_file(path / CONFIG)
    except UserError:
        return True  # which reading it then says


def _read(folder: Path) -> Parts:
    where, weights = folder / CONFIG, _weights(folder)
    assert weights is not None  # as `_is_one` has seen
    config = json_file(where)
    if (kind := value(config, "sae_type", str, where)) != "sae" or config.get("use_glu_encoder"):
        raise UserError(
            f"{where}: a {kind if kind != 'sae' else 'gated linear'} dictionary has no variant here, only 'sae' has"
        )
    d_in = whole(config, "d_model", where)
    d_sae = int(d_in * positive(config, "expansion_factor", where))
    hooks = [value(config, f"hook_point_{side}", str, where) for side in ("in", "out")]
    transcodes = hooks[0] != hooks[1]
    file = _file(weights)
    norms = {name.removeprefix(_NORM): file.number(name) for name in file.names() if name.startswith(_NORM)}
    tensors = {
        "W_enc": file.take("W_E", d_in, d_sae),
        "b_enc": file.take("b_E", d_sae),
        "W_dec": file.take("W_D", d_sae, d_in),
        "b_dec": file.take("b_D", d_in) if value(config, "use_decoder_bias", bool, where, True) else torch.zeros(d_in),
    }
    made, tensors = _activation(config, tensors, file, d_sae, where)
    file.nothing_left()
    units = [_units(config, norms, hook, d_in, where) for hook in hooks]
    return Parts(
        config=made,
        d_in=d_in,
        d_out=d_in if transcodes else None,
        tensors=tensors,
        subtracts_b_dec=False,
        normalisation=units[0],
        target_normalisation=units[1],
        provenance=_provenance(folder, config, hooks),
        where=weights,
        beside=folder / beside.NAME,
    )


def _file(weights: Path) -> Tensors:
    if weights.suffix == ".safetensors":
        return safetensors(weights)
    content = torch_file(weights)
    return Tensors(content["sae"] if isinstance(content.get("sae"), dict) else content, weights)


def _activation(
    config: dict[str, Any], tensors: dict[str, Tensor], file: Tensors, d_sae: int, where: Path
) -> tuple[SAEConfig, dict[str, Tensor]]:
    """The variant, and the tensors as it has them."""
    by_norm = value(config, "sparsity_include_decoder_norm", bool, where, True)
    name = value(config, "act_fn", str, where).lower()
    if name == "relu":
        return make("ReLU", d_sae=d_sae), tensors
    if name == "jumprelu":
        threshold_F = file.take(_THRESHOLD, d_sae).double().exp()
        if by_norm:
            # f ‖d‖ > θ, with f as it is.
            threshold_F = threshold_F / tensors["W_dec"].double().norm(dim=1).clamp_min(1e-12)
        return make("JumpReLU", d_sae=d_sae), tensors | {"threshold": threshold_F.float()}
    if name == "topk":
        made = make("TopK", d_sae=d_sae, k=whole(config, "top_k", where), decoder="unit")
        return made, with_norms_in_latents(tensors) if by_norm and not rows_are_unit(tensors["W_dec"]) else tensors
    raise UserError(
        f"{where}: act_fn {name!r} selects among a batch, with no threshold for one token: make it jumprelu there first"
    )


def _units(config: dict[str, Any], norms: dict[str, float], hook: str, d_in: int, where: Path) -> Normalisation:
    how = value(config, "norm_activation", str, where, "dataset-wise")
    if how == "inference":
        return Normalisation()
    if how != "dataset-wise":
        raise UserError(f"{where}: norm_activation {how!r} rescales by the token or the batch, which no variant here does")
    if not (norm := norms.get(hook, 0.0)) > 0 or not math.isfinite(norm):
        raise UserError(f"{where}: the weights hold no {_NORM}{hook}, by which dataset-wise rows are scaled: save it again")
    return Normalisation("rms", math.sqrt(d_in) / norm)


def _provenance(folder: Path, config: dict[str, Any], hooks: list[str]) -> Provenance:
    facts = {"model": config.get("model_name")}
    target = origin.source("openmoss", facts, hooks[1]) if hooks[0] != hooks[1] else None
    return Provenance(
        name=folder.name, source=origin.source("openmoss", facts, hooks[0], None, config), target_source=target
    )


def _write(sae: SAE, provenance: Provenance, folder: Path) -> None:
    kind = variant(sae.config)
    if kind not in _ACTIVATIONS:
        raise refused(sae, "OpenMOSS", f"it has {', '.join(_ACTIVATIONS)}")
    if sae.W_skip is not None or sae.d_out != sae.d_in:
        raise refused(sae, "OpenMOSS", "it has neither a skip path nor targets of another width")
    sae, tensors = ready(sae, subtracts_b_dec=False)
    names = {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}
    state = {theirs: tensors[ours] for ours, theirs in names.items()}
    if "threshold" in tensors:
        state[_THRESHOLD] = tensors["threshold"].double().clamp_min(2e-38).log().float()
    hook_in = origin.name(provenance.source) or "unknown"
    hook_out = origin.name(provenance.target_source or {}) or f"{hook_in}.out"
    config = {
        "sae_type": "sae",
        "d_model": sae.d_in,
        "expansion_factor": _expansion(sae.d_in, sae.d_sae),
        "use_decoder_bias": True,
        "act_fn": _ACTIVATIONS[kind],
        "norm_activation": "inference",
        "sparsity_include_decoder_norm": False,
        "top_k": getattr(sae.config, "k", 50),
        "hook_point_in": hook_in,
        "hook_point_out": hook_out if sae.is_transcoder else hook_in,
        "use_glu_encoder": False,
    }
    save_file(state, folder / f"{WEIGHTS}.safetensors", {"version": "saelight"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside.write(sae, provenance, folder / beside.NAME)


def _expansion(d_in: int, d_sae: int) -> float:
    """The number whose product with d_in, cut off as its reader does, is d_sae."""
    factor = d_sae / d_in
    return factor if int(d_in * factor) == d_sae else math.nextafter(factor, math.inf)


_LAYOUTS = tuple(Layout((CONFIG, f"{WEIGHTS}{ending}"), (beside.NAME,)) for ending in _ENDINGS)
FORMAT = Format(name="openmoss", is_one=_is_one, layouts=_LAYOUTS, read=from_parts(_read), write=_write)
