"""dictionary_learning: `ae.pt`, a state_dict, and `config.json`, as its `load_dictionary` reads them.

| saelight | dict_class | b_dec from the input |
|---|---|---|
| ReLU | AutoEncoder (AutoEncoderNew is read too) | subtracted (New: not) |
| Gated | GatedAutoEncoder | subtracted |
| JumpReLU | JumpReluAutoEncoder | not subtracted: it moves into b_enc |
| TopK | AutoEncoderTopK | subtracted |
| BatchTopK | BatchTopKSAE | subtracted |
| Matryoshka over BatchTopK in fixed groups | MatryoshkaBatchTopKSAE | subtracted |

Linear layers hold their weights as (out, in): encoder.weight (F, D), decoder.weight (D, F). What a trainer normalised by
(norm_factor) is in the biases already when it saves. Shapes: D d_in, F d_sae.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.convert import beside, origin
from saelight.convert.files_of_tensors import Tensors, json_file, part, torch_file, value, whole
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make, ready, refused, variant
from saelight.errors import UserError, did_you_mean
from saelight.saes.matryoshka import Matryoshka
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE, SAEConfig

CONFIG, WEIGHTS = "config.json", "ae.pt"


class _Class(NamedTuple):
    kind: str
    trainer: str
    tensors: dict[str, str]
    """Its names for saelight's."""
    numbers: tuple[str, ...] = ()
    subtracts: bool = True


_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
_GATES = {"r_mag": "r_mag", "b_gate": "gate_bias", "b_mag": "mag_bias"}
_CLASSES = {
    "AutoEncoder": _Class("ReLU", "StandardTrainer", _LINEAR | {"b_dec": "bias"}),
    "AutoEncoderNew": _Class("ReLU", "StandardTrainerAprilUpdate", _LINEAR | {"b_dec": "decoder.bias"}, (), False),
    "GatedAutoEncoder": _Class(
        "Gated",
        "GatedSAETrainer",
        {"W_enc": "encoder.weight", "W_dec": "decoder.weight", "b_dec": "decoder_bias"} | _GATES,
    ),
    "JumpReluAutoEncoder": _Class("JumpReLU", "JumpReluTrainer", _PLAIN | {"threshold": "threshold"}, (), False),
    "AutoEncoderTopK": _Class("TopK", "TopKTrainer", _LINEAR | {"b_dec": "b_dec"}, ("k", "threshold")),
    "BatchTopKSAE": _Class("BatchTopK", "BatchTopKTrainer", _LINEAR | {"b_dec": "b_dec"}, ("k", "threshold")),
    "MatryoshkaBatchTopKSAE": _Class("BatchTopK", "MatryoshkaBatchTopKTrainer", _PLAIN, ("k", "threshold")),
}
_WRITTEN: dict[str, str] = {
    "ReLU": "AutoEncoder",
    "Gated": "GatedAutoEncoder",
    "JumpReLU": "JumpReluAutoEncoder",
    "TopK": "AutoEncoderTopK",
    "BatchTopK": "BatchTopKSAE",
}
_NEVER_SET = -1.0  # its threshold, where everything passes


def _is_one(path: Path) -> bool:
    if path.is_dir():
        return (path / WEIGHTS).is_file() and (path / CONFIG).is_file()
    return path.suffix == ".pt" and path.name.startswith("ae") and _config_of(path) is not None


def _config_of(weights: Path) -> Path | None:
    """The config of a file of weights: beside it, or, of trainer_0/checkpoints/ae_1000.pt, one folder up."""
    return next((path for path in (weights.parent / CONFIG, weights.parent.parent / CONFIG) if path.is_file()), None)


def _read(path: Path) -> Parts:
    weights = path / WEIGHTS if path.is_dir() else path
    where = _config_of(weights)
    assert where is not None  # as `_is_one` has seen
    config = json_file(where)
    trainer = part(config, "trainer")
    name = value(trainer, "dict_class", str, where)
    if name not in _CLASSES:
        raise UserError(f"{where}: no dict_class {name!r} is read{did_you_mean(name, _CLASSES)}: {', '.join(_CLASSES)}")
    dictionary = _CLASSES[name]
    file, norm_factor = _state(weights)
    encoder = dictionary.tensors["W_enc"]
    rows, columns = file.shape(encoder)
    d_in, d_sae = (columns, rows) if encoder == "encoder.weight" else (rows, columns)
    tensors = _tensors(file, dictionary, d_in, d_sae)
    fields: dict[str, Any] = {"d_sae": d_sae}
    if "k" in dictionary.numbers:
        fields |= {"k": file.whole("k") if "k" in file else whole(trainer, "k", where), "decoder": "unit"}
        threshold = file.number("threshold") if "threshold" in file else _NEVER_SET
        if dictionary.kind == "BatchTopK":
            tensors["threshold"] = torch.tensor(threshold).expand(d_sae)
    made = make(dictionary.kind, **fields)
    if "group_sizes" in file:
        made = _matryoshka(file.take("group_sizes", *file.shape("group_sizes", 1)).tolist(), made, d_sae, weights)
    file.nothing_left()
    for bias in ("b_enc", "b_dec", "b_gate", "b_mag", "threshold"):
        if norm_factor != 1 and bias in tensors:
            # As it does itself in the end; a threshold that was never set stays so.
            tensors[bias] = torch.where(tensors[bias] == _NEVER_SET, tensors[bias], tensors[bias] * norm_factor)
    if name == "AutoEncoder":
        tensors = _with_unit_rows(tensors)
    return Parts(
        config=made,
        d_in=d_in,
        tensors=tensors,
        subtracts_b_dec=dictionary.subtracts,
        provenance=_provenance(weights, config),
        where=weights,
        beside=weights.parent / beside.NAME,
    )


def _state(weights: Path) -> tuple[Tensors, float]:
    """The state_dict, and what its biases are yet to be multiplied by: a backup of a training that goes on holds more than
    the SAE, as it is trained."""
    content = torch_file(weights)
    if not isinstance(state := content.get("ae"), dict):
        return Tensors(content, weights), 1.0
    rest = Tensors({"norm_factor": torch.as_tensor(content.get("norm_factor") or 1.0)}, weights)
    return Tensors(state, weights), rest.number("norm_factor")


def _tensors(file: Tensors, dictionary: _Class, d_in: int, d_sae: int) -> dict[str, Tensor]:
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    found = {}
    for ours, theirs in dictionary.tensors.items():
        shape = shapes.get(ours, (d_sae,))
        linear = theirs.endswith("coder.weight")
        tensor = file.take(theirs, *(reversed(shape) if linear else shape))
        found[ours] = tensor.T if linear else tensor
    return found


def _with_unit_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As its loader gives an AutoEncoder: decoder rows of norm 1, where they are not already."""
    norms_F = tensors["W_dec"].norm(dim=1)
    if torch.allclose(norms_F, torch.ones_like(norms_F)):
        return tensors
    norms_F = norms_F.clamp_min(1e-12)
    return tensors | {
        "W_enc": tensors["W_enc"] * norms_F,
        "b_enc": tensors["b_enc"] * norms_F,
        "W_dec": tensors["W_dec"] / norms_F[:, None],
    }


def _matryoshka(sizes: list[float], base: SAEConfig, d_sae: int, where: Path) -> SAEConfig:
    if min(sizes, default=0) < 1 or sum(sizes) != d_sae:
        raise UserError(f"{where}: group_sizes {sizes} do not make up {d_sae} latents: it is damaged")
    return make("Matryoshka", d_sae=d_sae, base=replace(base, d_sae=None), group_fractions=[size / d_sae for size in sizes])


def _provenance(weights: Path, config: dict[str, Any]) -> Provenance:
    trainer, buffer = part(config, "trainer"), part(config, "buffer")
    hook = trainer.get("submodule_name")
    if not isinstance(hook, str) and isinstance(layer := trainer.get("layer"), int):
        hook = f"blocks.{layer}.hook_resid_post"
    facts = {"model": trainer.get("lm_name"), "context": buffer.get("ctx_len")}
    folder = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    return Provenance(name=folder.name, source=origin.source("dictionary_learning", facts, hook, None, config))


def _write(sae: SAE, provenance: Provenance, folder: Path) -> None:
    kind = variant(sae.config)
    if sae.is_transcoder:
        raise refused(sae, "dictionary_learning", "it has no transcoders; SAELens, sparsify and circuit-tracer have")
    if kind not in _WRITTEN:
        raise refused(sae, "dictionary_learning", f"it has {', '.join(_WRITTEN)}")
    name, sizes = _WRITTEN[kind], _group_sizes(sae)
    if sizes and kind == "BatchTopK":
        name = "MatryoshkaBatchTopKSAE"
    dictionary = _CLASSES[name]
    sae, tensors = ready(sae, unit_rows=True, subtracts_b_dec=dictionary.subtracts)
    if name == "AutoEncoder" and not tensors["W_dec"].norm(dim=1).all():
        raise refused(sae, "dictionary_learning", "one of its decoder rows is 0, by whose norm it divides when it loads")
    state = {theirs: tensors[ours] for ours, theirs in dictionary.tensors.items()}
    state |= {name: tensor.T.contiguous() for name, tensor in state.items() if name.endswith("coder.weight")}
    config = _config(name, sae, provenance)
    if "k" in dictionary.numbers:
        config["trainer"]["k"] = k = getattr(sae.config, "k")  # noqa: B009 (through Matryoshka)
        threshold = tensors["threshold"][0] if "threshold" in tensors else torch.tensor(_NEVER_SET)
        state |= {"k": torch.tensor(k, dtype=torch.int32), "threshold": threshold.clone()}
    if name == "MatryoshkaBatchTopKSAE":
        state["group_sizes"] = torch.tensor(sizes)
    torch.save(state, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside.write(sae, provenance, folder / beside.NAME)


def _group_sizes(sae: SAE) -> list[int]:
    """Of a Matryoshka SAE in fixed groups."""
    config = sae.config
    if not isinstance(config, Matryoshka) or config.random_prefixes is not None:
        return []
    ends = config.group_ends(sae.d_sae)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _config(name: str, sae: SAE, provenance: Provenance) -> dict[str, Any]:
    source, before = provenance.source, origin.config_of(provenance, "dictionary_learning")
    trainer = {
        "trainer_class": _CLASSES[name].trainer,
        "dict_class": name,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "layer": origin.layer(source),
        "lm_name": source.get("model"),
        "submodule_name": source.get("hook"),
        "seed": provenance.seed,
    }
    was = part(before, "trainer") if part(before, "trainer").get("dict_class") == name else {}
    buffer = {"d_submodule": sae.d_in, "ctx_len": source.get("context")}
    return {"trainer": trainer | was, "buffer": buffer | part(before, "buffer")}


_CHECKPOINT = "ae*.pt"
_LAYOUTS = (
    Layout((WEIGHTS, CONFIG), (beside.NAME,)),
    Layout((_CHECKPOINT, CONFIG), (beside.NAME,), is_file=True),
    Layout((_CHECKPOINT, f"../{CONFIG}"), is_file=True),
)
FORMAT = Format(name="dictionary_learning", is_one=_is_one, layouts=_LAYOUTS, read=from_parts(_read), write=_write)
