"""The two names of a place in a model."""

import pytest

from saelight.hook_names import both, dotted, layer, transformer_lens

NAMES = [
    ("EleutherAI/pythia-70m", "gpt_neox.layers.3", "blocks.3.hook_resid_post"),
    ("EleutherAI/pythia-70m", "gpt_neox.layers.3.mlp", "blocks.3.hook_mlp_out"),
    ("EleutherAI/pythia-70m", "gpt_neox.layers.3.attention.dense.input", "blocks.3.attn.hook_z"),
    ("gpt2", "transformer.h.11", "blocks.11.hook_resid_post"),
    ("gpt2", "transformer.h.11.attn", "blocks.11.hook_attn_out"),
    ("gpt2", "transformer.wte", "hook_embed"),
    ("meta-llama/Llama-3.1-8B", "model.layers.0.input", "blocks.0.hook_resid_pre"),
    ("google/gemma-2-2b", "model.layers.20.post_attention_layernorm", "blocks.20.hook_attn_out"),
    ("google/gemma-2-2b", "model.layers.20.pre_feedforward_layernorm.input", "blocks.20.hook_resid_mid"),
    ("meta-llama/Llama-3.1-8B", "model.layers.0.self_attn", "blocks.0.hook_attn_out"),
    ("meta-llama/Llama-3.1-8B", "model.layers.0.post_attention_layernorm.input", "blocks.0.hook_resid_mid"),
    ("gpt2", "transformer.h.3.mlp.c_proj.input", "blocks.3.mlp.hook_post"),
    ("facebook/opt-125m", "model.decoder.layers.2.fc1.input", "blocks.2.mlp.hook_in"),
    ("google/gemma-2-2b", "model.layers.20.self_attn.o_proj.input", "blocks.20.attn.hook_z"),
    ("Qwen/Qwen3-1.7B", "model.layers.5.mlp.input", "blocks.5.mlp.hook_in"),
    ("Qwen/Qwen3-1.7B", "model.embed_tokens", "hook_embed"),
    ("sentence-transformers/all-MiniLM-L6-v2", "encoder.layer.3", "blocks.3.hook_resid_post"),
]
ONE_WAY = [
    ("layers.3", "blocks.3.hook_resid_post"),
    ("h.3.mlp", "blocks.3.hook_mlp_out"),
    ("model.layers.7.self_attn", "blocks.7.hook_attn_out"),
    ("model.layers.7.output", "blocks.7.hook_resid_post"),
    ("model.layers.7.post_feedforward_layernorm.output", "blocks.7.hook_mlp_out"),
    ("model.layers.7.pre_feedforward_layernorm.output", "blocks.7.ln2.hook_normalized"),
    ("model.language_model.layers.7", "blocks.7.hook_resid_post"),
]
"""Other paths of the same places."""
NONE = ["model.norm", "layers", "vision.layers.x", "model.layers.3.self_attn.q_proj", "", "a b"]


@pytest.mark.parametrize(("model", "path", "name"), NAMES)
def test_both_ways(model, path, name):
    assert transformer_lens(path, model) == name
    assert dotted(name, model) == path
    assert both(path, model) == both(name, model) == {"hook": path, "hook_name": name}
    assert layer(path) == layer(name)


@pytest.mark.parametrize(("path", "name"), ONE_WAY)
def test_other_paths_of_the_same_places(path, name):
    assert transformer_lens(path) == name


@pytest.mark.parametrize("path", NONE)
def test_what_has_no_other_name_keeps_its_own(path):
    assert transformer_lens(path) is None
    assert both(path, None) == ({"hook": path} if path else {})
    assert dotted("blocks.3.attn.hook_pattern", "gpt2") is None
    assert both("blocks.3.attn.hook_pattern", "gpt2")["hook"] == "blocks.3.attn.hook_pattern"
