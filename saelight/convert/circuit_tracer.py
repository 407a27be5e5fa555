"""circuit-tracer: a set of transcoders, `layer_0.safetensors` … and `config.yaml`, one for every block of a model.

| saelight | tensors of layer_i.safetensors |
|---|---|
| ReLU transcoder | W_enc (F, D), W_dec (F, D), b_enc, b_dec; W_skip (D, D) with a skip path: y += x @ W_skipᵀ |
| JumpReLU, BatchTopK transcoders | + activation_function.threshold (F) |

Files of single layers without a config, as mwhanna's transcoders are published, are read too; a config may say
`activation: topk` and `k`. It takes rows of every feature from the file itself: tensors are contiguous.
Shapes: D d_in, F d_sae.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from saelight.convert import beside, origin
from saelight.convert.files_of_tensors import safetensors, safetensors_names, whole, yaml_file
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make, ready, refused, variant
from saelight.errors import UserError
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE

CONFIG = "config.yaml"
_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_THRESHOLD = "activation_function.threshold"
_TENSORS = {"W_enc", "W_dec", "b_enc", "b_dec"}
_WRITTEN = ("ReLU", "JumpReLU", "BatchTopK")
_IN, _OUT = "mlp.hook_in", "hook_mlp_out"
"""Where a transcoder of an MLP reads and writes, where its source does not tell."""


def _is_one(path: Path) -> bool:
    return bool(_LAYER.fullmatch(path.name)) and path.is_file() and safetensors_names(path) >= _TENSORS


def _read(path: Path) -> Parts:
    where = path.parent / CONFIG
    config = yaml_file(where) if where.is_file() else {}
    match = _LAYER.fullmatch(path.name)
    assert match is not None  # as `_is_one` has seen
    file = safetensors(path)
    d_sae, d_in = file.shape("W_enc")
    tensors = {
        "W_enc": file.take("W_enc", d_sae, d_in).T,
        "b_enc": file.take("b_enc", d_sae),
        "W_dec": file.take("W_dec", d_sae, d_in),
        "b_dec": file.take("b_dec", d_in),
    }
    if "W_skip" in file:
        tensors["W_skip"] = file.take("W_skip", d_in, d_in).T
    fields: dict[str, Any] = {"d_sae": d_sae, "skip": "W_skip" in tensors}
    activation = config.get("activation")
    if activation == "topk" or "k" in file:
        k = file.whole("k") if "k" in file else whole(config, "k", where)
        made = make("TopK", **fields, k=k, decoder="unit")
    elif _THRESHOLD in file and activation != "relu":
        tensors["threshold"] = file.take(_THRESHOLD, d_sae)
        made = make("JumpReLU", **fields)
    else:
        file.drop(_THRESHOLD)
        made = make("ReLU", **fields)
    file.nothing_left()
    return Parts(
        config=made,
        d_in=d_in,
        d_out=d_in,
        tensors=tensors,
        subtracts_b_dec=False,
        provenance=_provenance(path, int(match[1]), config),
        where=path,
        beside=path.with_name(_beside(int(match[1]))),
    )


def _provenance(path: Path, layer: int, config: dict[str, Any]) -> Provenance:
    facts = {"model": config.get("model_name")}
    hook_in, hook_out = (config.get(f"feature_{side}_hook", default) for side, default in (("input", _IN), ("output", _OUT)))
    return Provenance(
        name=path.stem,
        source=origin.source("circuit_tracer", facts, f"blocks.{layer}.{hook_in}", None, config),
        target_source=origin.source("circuit_tracer", facts, f"blocks.{layer}.{hook_out}"),
    )


def _beside(layer: int | str) -> str:
    return f"layer_{layer}.{beside.NAME}"


def _write_set(saes: dict[str, tuple[SAE, Provenance]], folder: Path) -> None:
    by_layer: dict[int, tuple[str, SAE, Provenance]] = {}
    for name, (sae, provenance) in saes.items():
        if why := _why_not(sae):
            raise UserError(f"{name}: {refused(sae, 'circuit-tracer', why)}")
        if (layer := origin.layer(provenance.source)) is None:
            raise UserError(
                f"{name}: its source tells no layer, and circuit-tracer needs one of each: harvest names the hook"
            )
        if layer in by_layer:
            raise UserError(
                f"{name} and {by_layer[layer][0]} are both of layer {layer}, and circuit-tracer takes one: leave one out"
            )
        by_layer[layer] = name, sae, provenance
    if missing := sorted(set(range(max(by_layer) + 1)) - by_layer.keys()):
        raise UserError(
            f"circuit-tracer needs a transcoder of every layer, and there is none of {', '.join(map(str, missing))}: give a "
            "folder that holds them all"
        )
    if len(widths := {sae.d_sae for _, sae, _ in by_layer.values()}) > 1:
        raise UserError(f"circuit-tracer wants one d_sae in all layers, these have {', '.join(map(str, sorted(widths)))}")
    for layer, (_, sae, provenance) in sorted(by_layer.items()):
        _write_layer(layer, sae, provenance, folder)
    _, _, provenance = by_layer[0]
    (folder / CONFIG).write_text(yaml.safe_dump(_config(provenance), sort_keys=False))


def _why_not(sae: SAE) -> str | None:
    """Why an SAE has no form here, if so."""
    if not sae.is_transcoder:
        return "it traces transcoders, of MLPs: train with data.target_path"
    if variant(sae.config) not in _WRITTEN:
        return "it has ReLU and JumpReLU transcoders only"
    if sae.d_out != sae.d_in:
        return f"its targets have d_in's width, these {sae.d_out} in place of {sae.d_in}"
    return None


def _write_layer(layer: int, sae: SAE, provenance: Provenance, folder: Path) -> None:
    sae, tensors = ready(sae)
    tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    if "W_skip" in tensors:
        tensors["W_skip"] = tensors["W_skip"].T.contiguous()
    if "threshold" in tensors:
        tensors[_THRESHOLD] = tensors.pop("threshold")
    save_file(tensors, folder / f"layer_{layer}.safetensors")
    beside.write(sae, provenance, folder / _beside(layer))


def _config(provenance: Provenance) -> dict[str, Any]:
    source, target = provenance.source, provenance.target_source or {}
    hooks = (str(side.get("hook_name", "")).partition("blocks.0.")[2] for side in (source, target))
    hook_in, hook_out = hooks
    config = {
        "model_kind": "transcoder_set",
        "model_name": source.get("model"),
        "feature_input_hook": hook_in or _IN,
        "feature_output_hook": hook_out or _OUT,
        "scan": provenance.name,
    }
    before = origin.config_of(provenance, "circuit_tracer")
    return config | {key: before[key] for key in ("scan", "feature_input_hook", "feature_output_hook") if key in before}


_SEVERAL = "layer_*.safetensors"
FORMAT = Format(
    name="circuit_tracer",
    is_one=_is_one,
    layouts=(Layout((_SEVERAL,), (CONFIG, _beside("*")), is_file=True),),
    read=from_parts(_read),
    write_set=_write_set,
    several=_SEVERAL,
)
