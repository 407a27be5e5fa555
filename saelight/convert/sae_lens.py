"""SAELens: `cfg.json` and `sae_weights.safetensors`, as `SAE.load_from_disk` reads them.

| saelight | architecture | tensors |
|---|---|---|
| ReLU | standard | W_enc (D, F), b_enc, W_dec (F, D), b_dec |
| JumpReLU, BatchTopK | jumprelu | + threshold (F) |
| Gated | gated | W_enc, b_gate, b_mag, r_mag, W_dec, b_dec |
| TopK, AbsTopK | topk, abstopk | as standard; k in the config |
| transcoders of the first two | transcoder, jumprelu_transcoder, with W_skip (d_out, d_in) *skip_transcoder | as there |
| every other variant | saelight, which `in_sae_lens.py` makes SAELens know | saelight's own |

Its autoencoders subtract b_dec where the config says so (by default), its transcoders never. Shapes: D d_in, F d_sae.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from saelight.convert import beside, origin
from saelight.convert.files_of_tensors import json_file, part, safetensors, value, whole
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import TOPK_KINDS, Parts, make, ready, variant, variant_name, with_norms_in_latents
from saelight.errors import UserError
from saelight.saes.plain_data import from_spec
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE
from saelight.saes.sae_folder import published

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"
"""What this was checked against. Without a version SAELens takes a config for one from before 6.0 and rewrites it."""
_AUTOENCODERS: dict[str, str] = {
    "ReLU": "standard",
    "Gated": "gated",
    "JumpReLU": "jumprelu",
    "BatchTopK": "jumprelu",
    "TopK": "topk",
    "AbsTopK": "abstopk",
}
_TRANSCODERS: dict[str, str] = {"ReLU": "", "JumpReLU": "jumprelu_", "BatchTopK": "jumprelu_"}


class _Architecture(NamedTuple):
    kind: str
    tensors: tuple[str, ...]
    transcodes: bool = False


_STANDARD = ("W_enc", "W_dec", "b_enc", "b_dec")
_READ = {
    "standard": _Architecture("ReLU", _STANDARD),
    "gated": _Architecture("Gated", ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag")),
    "jumprelu": _Architecture("JumpReLU", (*_STANDARD, "threshold")),
    "topk": _Architecture("TopK", _STANDARD),
    "abstopk": _Architecture("AbsTopK", _STANDARD),
    "batchtopk": _Architecture("BatchTopK", (*_STANDARD, "threshold")),
    "matryoshka_batchtopk": _Architecture("BatchTopK", (*_STANDARD, "threshold")),
    "transcoder": _Architecture("ReLU", _STANDARD, True),
    "skip_transcoder": _Architecture("ReLU", (*_STANDARD, "W_skip"), True),
    "jumprelu_transcoder": _Architecture("JumpReLU", (*_STANDARD, "threshold"), True),
    "jumprelu_skip_transcoder": _Architecture("JumpReLU", (*_STANDARD, "threshold", "W_skip"), True),
}
ARCHITECTURE = "saelight"
_RELATIVE = (
    "SAELens' matching pursuit stops at a residual of a fixed length, saelight's at a share of each token's own: neither "
    "says the other's"
)


def _is_one(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def _read(folder: Path) -> Parts:
    where = folder / CONFIG
    config = _of_any_version(json_file(where))
    name = value(config, "architecture", str, where, "standard")
    if name == ARCHITECTURE:
        return _read_own(folder, config)
    if name == "matching_pursuit":
        raise UserError(f"{folder} cannot be read: {_RELATIVE}")
    if name not in _READ:
        raise UserError(f"{where}: architecture {name!r} has no variant here; those that have: {', '.join(_READ)}")
    _check_runs_as_stored(config, where)
    d_in, d_sae = (whole(config, key, where) for key in ("d_in", "d_sae"))
    architecture = _READ[name]
    d_out = whole(config, "d_out", where) if architecture.transcodes else None
    tensors = _tensors(folder, architecture, d_in, d_sae, d_in if d_out is None else d_out)
    if "W_skip" in tensors:
        tensors["W_skip"] = tensors["W_skip"].T
    # Training configs, whose SAEs select by f ‖d‖ unless they say otherwise, name the batch kinds alone.
    if value(config, "rescale_acts_by_decoder_norm", bool, where, "batchtopk" in name):
        tensors = with_norms_in_latents(tensors)
    fields: dict[str, Any] = {"d_sae": d_sae, "skip": "W_skip" in tensors}
    if architecture.kind in TOPK_KINDS:
        fields |= {"k": whole(config, "k", where), "decoder": "unit"}
    metadata = part(config, "metadata")
    return Parts(
        config=make(architecture.kind, **fields),
        d_in=d_in,
        d_out=d_out,
        tensors=tensors,
        subtracts_b_dec=d_out is None and value(config, "apply_b_dec_to_input", bool, where, True),
        provenance=_provenance(folder, config, metadata),
        where=folder / WEIGHTS,
        beside=folder / beside.NAME,
    )


def _read_own(folder: Path, config: dict[str, Any]) -> Parts:
    """What saelight alone computes, in SAELens too."""
    where = folder / CONFIG
    d_out = None if config.get("d_out") is None else whole(config, "d_out", where)
    try:
        made = from_spec(config.get("spec"))
    except UserError as error:
        raise UserError(f"{where} does not describe an SAE: {error}") from None
    return Parts(
        config=made,
        d_in=whole(config, "d_in", where),
        d_out=d_out,
        tensors=safetensors(folder / WEIGHTS).everything(),
        subtracts_b_dec=d_out is None,
        provenance=_provenance(folder, config, part(config, "metadata")),
        where=folder / WEIGHTS,
        beside=folder / beside.NAME,
    )


def _of_any_version(config: dict[str, Any]) -> dict[str, Any]:
    """A config as one of SAELens 6 is: older ones have the language model's keys among the others, and other names."""
    if "metadata" in config:
        return config
    config = config | {"metadata": dict(config)}
    kind, settings = config.get("activation_fn", config.get("activation_fn_str")), part(config, "activation_fn_kwargs")
    if kind == "topk" and "k" in settings:
        config |= {"architecture": "topk", "k": settings["k"]}
    if "hook_point" in config:
        config["metadata"]["hook_name"] = config["hook_point"]
    return config


def _check_runs_as_stored(config: dict[str, Any], where: Path) -> None:
    """Raise `UserError` for an SAE that changes its input at run time."""
    how = config.get("normalize_activations") or "none"
    if how is True or how == "expected_average_only_in":
        raise UserError(
            f"{where}: normalize_activations expects rows of an average norm that the folder does not hold: fold it first "
            "(SAELens' fold_activation_norm_scaling_factor, then save_model)"
        )
    if how == "covariance_whitening":
        raise UserError(f"{where}: the whitening is not folded yet: convert the final SAE, which SAELens saves folded")
    if how != "none":
        raise UserError(f"{where}: normalize_activations {how!r} rescales every token by itself, which no variant here does")
    if config.get("finetuning_scaling_factor"):
        raise UserError(f"{where}: finetuning_scaling_factor has no place here: multiply it into the weights first")


def _tensors(folder: Path, architecture: _Architecture, d_in: int, d_sae: int, d_out: int) -> dict[str, Tensor]:
    file = safetensors(folder / WEIGHTS)
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,), "W_skip": (d_out, d_in)}
    found = {}
    for name in architecture.tensors:
        if name == "threshold" and "topk_threshold" in file:
            # A training checkpoint of the batch kinds has one for all latents.
            found[name] = file.take("topk_threshold").expand(d_sae)
        elif name == "threshold" and "log_threshold" in file:
            found[name] = file.take("log_threshold", d_sae).double().exp().float()
        else:
            found[name] = file.take(name, *shapes.get(name, (d_sae,)))
    if "scaling_factor" in file and not (file.take("scaling_factor", d_sae) == 1).all():
        raise UserError(f"{folder / WEIGHTS}: scaling_factor has no place here: multiply it into the weights first")
    file.nothing_left()
    return found


def _provenance(folder: Path, config: dict[str, Any], metadata: dict[str, Any]) -> Provenance:
    model = metadata.get("model_name")
    facts = {"model": model, "context": metadata.get("context_size"), "dataset": metadata.get("dataset_path")}
    source = origin.source(
        "sae_lens", facts, metadata.get("hf_hook_name") or metadata.get("hook_name"), metadata.get("hook_name"), config
    )
    target = metadata.get("hf_hook_name_out") or metadata.get("hook_name_out")
    version = metadata.get("sae_lens_training_version")
    return Provenance(
        name=folder.name,
        source=source,
        target_source=origin.source("sae_lens", facts, target, metadata.get("hook_name_out")) if target else None,
        versions={"sae_lens": version} if version else {},
    )


def _write(sae: SAE, provenance: Provenance, folder: Path) -> str | None:
    architecture = _architecture(sae)
    sae, tensors = ready(sae, unit_rows=architecture != ARCHITECTURE)
    if architecture == ARCHITECTURE:
        tensors = {name: tensor.contiguous() for name, tensor in published(sae).items()}
    elif "W_skip" in tensors:
        tensors["W_skip"] = tensors["W_skip"].T.contiguous()
    before = origin.config_of(provenance, "sae_lens")
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not sae.is_transcoder and architecture != ARCHITECTURE,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if before.get("reshape_activations") == "hook_z" else "none",
        "metadata": _metadata(provenance),
    }
    if sae.is_transcoder or architecture == ARCHITECTURE:
        config["d_out"] = sae.d_out if sae.is_transcoder else None
    if architecture in ("topk", "abstopk"):
        config |= {"k": getattr(sae.config, "k"), "rescale_acts_by_decoder_norm": False}  # noqa: B009 (through Matryoshka)
    if architecture == ARCHITECTURE:
        config["spec"] = sae.config.spec()
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside.write(sae, provenance, folder / beside.NAME)
    if architecture != ARCHITECTURE:
        return None
    return f"SAELens has no {variant_name(sae)} of its own: there, `import saelight.convert.in_sae_lens` before it is loaded"


def _architecture(sae: SAE) -> str:
    kind = variant(sae.config)
    if not sae.is_transcoder:
        return _AUTOENCODERS.get(kind, ARCHITECTURE)
    if kind not in _TRANSCODERS:
        return ARCHITECTURE
    return f"{_TRANSCODERS[kind]}{'skip_' if sae.W_skip is not None else ''}transcoder"


def _metadata(provenance: Provenance) -> dict[str, Any]:
    """What SAELens keeps of the language model: under its own names, what it said itself before all."""
    source, target = provenance.source, provenance.target_source or {}
    told = {
        "model_name": source.get("model"),
        "hook_name": source.get("hook_name"),
        "hf_hook_name": origin.dotted(source),
        "hook_name_out": target.get("hook_name"),
        "hf_hook_name_out": origin.dotted(target),
        "context_size": source.get("context"),
        "dataset_path": source.get("dataset"),
    }
    before = part(origin.config_of(provenance, "sae_lens"), "metadata")
    now = {"sae_lens_version": VERSION, "sae_lens_training_version": provenance.versions.get("sae_lens")}
    return {key: fact for key, fact in told.items() if fact is not None} | before | now


_LAYOUT = Layout((CONFIG, WEIGHTS), (beside.NAME,))
FORMAT = Format(name="sae_lens", is_one=_is_one, layouts=(_LAYOUT,), read=from_parts(_read), write=_write)
