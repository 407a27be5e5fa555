"""The two names of a place in a model: TransformerLens's, and the dotted path of the module in transformers.

    blocks.3.hook_resid_post   model.layers.3               what block 3 puts out
    blocks.3.hook_resid_pre    model.layers.3.input
    blocks.3.hook_mlp_out      model.layers.3.mlp
    blocks.3.mlp.hook_in       model.layers.3.mlp.input
    blocks.3.hook_attn_out     model.layers.3.self_attn
    blocks.3.attn.hook_z       model.layers.3.self_attn.o_proj.input
    hook_embed                 model.embed_tokens

A dotted path that ends in `.input` is what its module is given, every other what it puts out. Families of models name their
blocks and what is in them differently; a name that is in no table here has no counterpart, and stays as it is.
"""

import re
from typing import Any, NamedTuple


class _Family(NamedTuple):
    models: str
    """In lower case, what the names of its models contain."""
    blocks: str
    attention: str
    projection: str
    mlp: str
    embedding: str


_FAMILIES = (
    _Family(r"pythia|neox", "gpt_neox.layers", "attention", "attention.dense", "mlp", "gpt_neox.embed_in"),
    _Family(r"gpt-?2|gpt-?j|gpt-?neo", "transformer.h", "attn", "attn.c_proj", "mlp", "transformer.wte"),
    _Family(
        r"bert|minilm", "encoder.layer", "attention", "attention.output.dense", "output.dense", "embeddings.word_embeddings"
    ),
    _Family(r"", "model.layers", "self_attn", "self_attn.o_proj", "mlp", "model.embed_tokens"),
)
"""The first that fits; the last is Llama's, which Gemma, Qwen and Mistral share."""
_TL_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_DOTTED_BLOCK = re.compile(r"(?:[\w.]+\.)?(?:layers|h|layer|blocks)\.(\d+)(?:\.(.+))?")
_IN_BLOCK = {
    "": "hook_resid_post",
    "input": "hook_resid_pre",
    "post_feedforward_layernorm": "hook_mlp_out",
    "pre_feedforward_layernorm": "ln2.hook_normalized",
}
"""Beside what the families name, all of them."""
_EMBEDDING = "hook_embed"


def transformer_lens(dotted: str) -> str | None:
    """TransformerLens's name of a dotted path, None where it has none, or the path is no such."""
    dotted = dotted.removesuffix(".output")
    if dotted.rpartition(".")[2] in {family.embedding.rpartition(".")[2] for family in _FAMILIES}:
        return _EMBEDDING
    if not (match := _DOTTED_BLOCK.fullmatch(dotted)):
        return None
    names = dict(_IN_BLOCK)
    for family in _FAMILIES:
        names |= {
            family.mlp: "hook_mlp_out",
            f"{family.mlp}.input": "mlp.hook_in",
            family.attention: "hook_attn_out",
            f"{family.projection}.input": "attn.hook_z",
        }
    name = names.get(match[2] or "")
    return name and f"blocks.{match[1]}.{name}"


def dotted(name: str, model: str | None) -> str | None:
    """The dotted path of TransformerLens's name in a model of this name; None where there is no telling."""
    family = next(f for f in _FAMILIES if re.search(f.models, (model or "").lower()))
    if name in (_EMBEDDING, f"blocks.0.{_EMBEDDING}"):
        return family.embedding
    if not (match := _TL_BLOCK.fullmatch(name)):
        return None
    places = {
        "hook_resid_post": "",
        "hook_resid_pre": ".input",
        "hook_mlp_out": f".{family.mlp}",
        "mlp.hook_in": f".{family.mlp}.input",
        "hook_mlp_in": f".{family.mlp}.input",
        "ln2.hook_normalized": f".{family.mlp}.input",
        "hook_attn_out": f".{family.attention}",
        "attn.hook_z": f".{family.projection}.input",
    }
    place = places.get(match[2])
    return None if place is None else f"{family.blocks}.{match[1]}{place}"


def is_transformer_lens(name: str) -> bool:
    """Whether a name is TransformerLens's, by its form."""
    return "hook_" in name


def layer(name: Any) -> int | None:
    """The number of the block that a name of either kind is in; None where it is in none."""
    name = name if isinstance(name, str) else ""
    match = _TL_BLOCK.fullmatch(name) or _DOTTED_BLOCK.fullmatch(name)
    return int(match[1]) if match else None


def both(name: Any, model: Any) -> dict[str, str]:
    """A place's names as a `source` has them: `hook` (dotted, where it is known, else as given) and `hook_name`
    (TransformerLens's, where it is known); none of what is no name."""
    if not isinstance(name, str) or not name:
        return {}
    model = model if isinstance(model, str) else None
    if is_transformer_lens(name):
        return {"hook": dotted(name, model) or name, "hook_name": name}
    known = transformer_lens(name)
    return {"hook": name} | ({"hook_name": known} if known else {})


def short_model(model: str) -> str:
    """A model's name for people: the last part of a path or a hub's name; of `{package:NAME}/folder` the package."""
    return model.partition("{package:")[2].partition("}")[0] or model.rstrip("/").rpartition("/")[2]
