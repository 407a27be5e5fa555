"""The two names of a place in a model: TransformerLens's, and the dotted path of the module in transformers.

    blocks.3.hook_resid_post   model.layers.3               what block 3 puts out
    blocks.3.hook_resid_pre    model.layers.3.input
    blocks.3.hook_resid_mid    model.layers.3.post_attention_layernorm.input
    blocks.3.hook_mlp_out      model.layers.3.mlp
    blocks.3.mlp.hook_in       model.layers.3.mlp.input
    blocks.3.mlp.hook_post     model.layers.3.mlp.down_proj.input
    blocks.3.hook_attn_out     model.layers.3.self_attn
    blocks.3.attn.hook_z       model.layers.3.self_attn.o_proj.input
    hook_embed                 model.embed_tokens

A dotted path that ends in `.input` is what its module is given, every other what it puts out. Families of models name their
blocks and what is in them differently; a name that is in no table here has no counterpart, and stays as it is.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple


class _Family(NamedTuple):
    models: str
    """In lower case, what the names of its models contain."""
    blocks: str
    embedding: str | None
    norm: str | None
    """Before the attention; None where norms come after the sums."""
    attention: str
    """What puts out what the attention adds."""
    projection: str
    """Of the attention's heads, whose input is z."""
    middle: str | None
    """The norm before the MLP, whose input is the residual stream between the two; None where they run side by side."""
    mlp_in: str
    """What is given the MLP's input."""
    mlp_out: str
    """What puts out what the MLP adds."""
    neurons: str
    """The MLP's last layer, whose input is its neurons' activations."""


def _decoder(models: str, attention: str, projection: str, middle: str | None, *mlp: str) -> _Family:
    """A family that names its blocks and their first norm as Llama does."""
    return _Family(models, "model.layers", "model.embed_tokens", "input_layernorm", attention, projection, middle, *mlp)


def _gpt(models: str, projection: str, middle: str | None, neurons: str) -> _Family:
    """A family that names its blocks as GPT-2 does."""
    mlp = "mlp", "mlp", neurons
    return _Family(models, "transformer.h", "transformer.wte", "ln_1", "attn", projection, middle, *mlp)


_NORMED = _decoder(
    r"gemma-?[234]",
    "post_attention_layernorm",
    "self_attn.o_proj",
    "pre_feedforward_layernorm",
    "mlp",
    "post_feedforward_layernorm",
    "mlp.down_proj",
)
"""What its attention and its MLP put out goes through one more norm before it is added."""
_FAMILIES = (
    _Family(
        r"pythia|neox",
        "gpt_neox.layers",
        "gpt_neox.embed_in",
        "input_layernorm",
        "attention",
        "attention.dense",
        None,
        "mlp",
        "mlp",
        "mlp.dense_4h_to_h",
    ),
    _gpt(r"gpt-?j", "attn.out_proj", None, "mlp.fc_out"),
    _gpt(r"gpt-?neo", "attn.attention.out_proj", "ln_2", "mlp.c_proj"),
    _gpt(r"gpt-?2", "attn.c_proj", "ln_2", "mlp.c_proj"),
    _Family(
        r"bloom|falcon",
        "transformer.h",
        "transformer.word_embeddings",
        "input_layernorm",
        "self_attention.dense",
        "self_attention.dense",
        None,
        "mlp",
        "mlp.dense_4h_to_h",
        "mlp.dense_4h_to_h",
    ),
    _Family(
        r"\bopt\b",
        "model.decoder.layers",
        "model.decoder.embed_tokens",
        "self_attn_layer_norm",
        "self_attn",
        "self_attn.out_proj",
        "final_layer_norm",
        "fc1",
        "fc2",
        "fc2",
    ),
    _Family(
        r"clip|siglip",
        "vision_model.encoder.layers",
        None,
        "layer_norm1",
        "self_attn",
        "self_attn.out_proj",
        "layer_norm2",
        "mlp",
        "mlp",
        "mlp.fc2",
    ),
    _Family(
        r"dino",
        "encoder.layer",
        None,
        "norm1",
        "layer_scale1",
        "attention.o_proj",
        "norm2",
        "mlp",
        "layer_scale2",
        "mlp.fc2",
    ),
    _Family(
        r"\bvit\b",
        "layers",
        None,
        "layernorm_before",
        "attention",
        "attention.o_proj",
        "layernorm_after",
        "mlp",
        "mlp",
        "mlp.fc2",
    ),
    _Family(
        r"bert|minilm",
        "encoder.layer",
        "embeddings.word_embeddings",
        None,
        "attention.output.dense",
        "attention.output.dense",
        None,
        "intermediate",
        "output.dense",
        "output.dense",
    ),
    _decoder(r"\bphi-?[12]", "self_attn", "self_attn.dense", None, "mlp", "mlp", "mlp.fc2"),
    _NORMED,
    _decoder(r"", "self_attn", "self_attn.o_proj", "post_attention_layernorm", "mlp", "mlp", "mlp.down_proj"),
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
_AROUND = ("", "model.", "bert.", "language_model.", "model.language_model.", "vision_tower.", "model.vision_tower.")
"""What a model may be part of."""


def transformer_lens(dotted: str, model: str | None = None) -> str | None:
    """TransformerLens's name of a dotted path in a model of this name, None where it has none, or the path is no such."""
    dotted = dotted.removesuffix(".output")
    embeddings = {family.embedding.rpartition(".")[2] for family in _FAMILIES if family.embedding}
    if dotted.rpartition(".")[2] in embeddings:
        return _EMBEDDING
    if not (match := _DOTTED_BLOCK.fullmatch(dotted)):
        return None
    own = _named(model)
    names = dict(_IN_BLOCK)
    for family in (*_FAMILIES, own):
        names |= {
            family.mlp_out: "hook_mlp_out",
            f"{family.mlp_in}.input": "mlp.hook_in",
            f"{family.neurons}.input": "mlp.hook_post",
            f"{family.projection}.input": "attn.hook_z",
        }
        # One family's name for what is added is another's for a norm.
        if family is own or family is not _NORMED:
            names[family.attention] = "hook_attn_out"
    if own.middle is not None:
        names[f"{own.middle}.input"] = "hook_resid_mid"
    name = names.get(match[2] or "")
    return name and f"blocks.{match[1]}.{name}"


def dotted(name: str, model: str | None) -> str | None:
    """The dotted path of TransformerLens's name in a model of this name; None where there is no telling."""
    return _path(name, _named(model))


def dotted_among(name: str, modules: Collection[str]) -> str | None:
    """The dotted path of TransformerLens's name in a model that has these modules, whatever it is called and whatever lies
    around its blocks; None where its kind is not known, or has no such place. It may have fewer blocks."""
    for family in _FAMILIES:
        parts = [part for part in (family.norm, family.attention, family.projection, family.middle) if part]
        for here in _placed(family):
            if all(f"{here.blocks}.0.{part}" in modules for part in parts):
                return _path(name, here)
    return None


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
    known = transformer_lens(name, model)
    return {"hook": name} | ({"hook_name": known} if known else {})


def _named(model: str | None) -> _Family:
    """The family of a model, by its name."""
    return next(family for family in _FAMILIES if re.search(family.models, (model or "").lower()))


def _placed(family: _Family) -> Iterator[_Family]:
    """The family as part of other modules, and without modules around it, as AutoModel has it."""
    for cut in range(family.blocks.count(".") + 1):
        blocks, embedding = (".".join(path.split(".")[cut:]) for path in (family.blocks, family.embedding or ""))
        for around in _AROUND:
            yield family._replace(blocks=around + blocks, embedding=around + embedding if embedding else None)


def _path(name: str, family: _Family) -> str | None:
    """The dotted path of TransformerLens's name in a family; None where it has none."""
    if name in (_EMBEDDING, f"blocks.0.{_EMBEDDING}"):
        return family.embedding
    if not (match := _TL_BLOCK.fullmatch(name)):
        return None
    places = {
        "hook_resid_post": "",
        "hook_resid_pre": ".input",
        "hook_resid_mid": None if family.middle is None else f".{family.middle}.input",
        "hook_mlp_out": f".{family.mlp_out}",
        "mlp.hook_in": f".{family.mlp_in}.input",
        "hook_mlp_in": f".{family.mlp_in}.input",
        "ln2.hook_normalized": f".{family.mlp_in}.input",
        "mlp.hook_post": f".{family.neurons}.input",
        "hook_attn_out": f".{family.attention}",
        "attn.hook_z": f".{family.projection}.input",
    }
    place = places.get(match[2])
    return None if place is None else f"{family.blocks}.{match[1]}{place}"
