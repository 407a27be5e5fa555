"""Folders of other libraries, written here as their descriptions have them, against what those compute, written out."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import saelight
from saelight.convert import read, write
from tests.support.conversions import CONFIGS, D, F, K, rows, same, same_sae, trained, with_skip


@dataclass
class Weights:
    """One SAE's weights, in no library's names."""

    W: Tensor  # (D, F)
    b: Tensor
    d: Tensor  # (F, D)
    c: Tensor
    theta: Tensor

    def pre(self, x: Tensor) -> Tensor:
        """None of these libraries subtracts the decoder's bias."""
        return x @ self.W + self.b


@pytest.fixture
def w() -> Weights:
    generator = torch.Generator().manual_seed(4)
    shapes = {"W": (D, F), "b": (F,), "d": (F, D), "c": (D,)}
    tensors = {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return Weights(**tensors, theta=torch.rand(F, generator=generator) + 0.05)


def jump(pre: Tensor, theta: Tensor | float) -> Tensor:
    return pre * (pre > theta)


def topk(pre: Tensor, k: int = K) -> Tensor:
    values, indices = torch.relu(pre).topk(k)
    return torch.zeros_like(pre).scatter(1, indices, values)


def holds(path, f_BF: Tensor, x_hat_BD: Tensor):
    """Assert that the SAE at this path has these latents and reconstructions; the SAE."""
    sae, x = saelight.load(path), rows()
    assert 0.02 < (f_BF != 0).double().mean() < 0.9
    assert same(f_BF, sae.encode(x))
    assert same(x_hat_BD, sae(x))
    return sae


def test_gemma_scope_1(w, tmp_path):
    place = tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    place.mkdir(parents=True)
    arrays = {"W_enc": w.W, "W_dec": w.d, "b_enc": w.b, "b_dec": w.c, "threshold": w.theta}
    np.savez(place / "params.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    f_BF = jump(w.pre(rows()), w.theta)
    sae = holds(place, f_BF, f_BF @ w.d + w.c)
    assert same(sae(rows()), read(place / "params.npz")(rows()))
    assert sae.provenance.name == "layer_20-width_16k-average_l0_71"
    assert sae.provenance.source["model"] == "gemma-2-2b"
    assert sae.provenance.source["hook"] == "model.layers.20"


def test_gemma_scope_1_of_the_embedding_was_trained_on_larger_rows(w, tmp_path):
    place = tmp_path / "embedding" / "width_4k" / "average_l0_44"
    place.mkdir(parents=True)
    arrays = {"W_enc": w.W, "W_dec": w.d, "b_enc": w.b, "b_dec": w.c, "threshold": w.theta}
    np.savez(place / "params.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    f_BF = jump(rows() / math.sqrt(D) @ w.W + w.b, w.theta)
    holds(place, f_BF, math.sqrt(D) * f_BF @ w.d + w.c)


@pytest.mark.parametrize("affine", [False, True])
def test_gemma_scope_2(affine, w, tmp_path):
    skip = torch.randn(D, D) if affine else torch.zeros(D, D)
    tensors = {"w_enc": w.W, "w_dec": w.d, "b_enc": w.b, "b_dec": w.c, "threshold": w.theta}
    save_file(tensors | ({"affine_skip_connection": skip} if affine else {}), tmp_path / "params.safetensors")
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "affine_connection": affine}
    config["hf_hook_point_in"] = "model.layers.7.pre_feedforward_layernorm.output"
    config["hf_hook_point_out"] = "model.layers.7.post_feedforward_layernorm.output"
    (tmp_path / "config.json").write_text(json.dumps(config))
    f_BF = jump(w.pre(rows()), w.theta)
    sae = holds(tmp_path, f_BF, f_BF @ w.d + w.c + rows() @ skip)
    assert sae.is_transcoder
    assert sae.provenance.source["hook_name"] == "blocks.7.ln2.hook_normalized"
    assert sae.provenance.target_source["hook_name"] == "blocks.7.hook_mlp_out"


@pytest.mark.parametrize("transcoder", [False, True])
def test_llama_scope(transcoder, w, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    norms = {"in": 6.3, "out": 2.1 if transcoder else 6.3}
    hooks = {"hook_point_in": "blocks.8.ln2.hook_normalized", "hook_point_out": "blocks.8.hook_mlp_out"}
    if not transcoder:
        hooks = dict.fromkeys(hooks, "blocks.8.hook_resid_post")
    config = {"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.2} | hooks
    (tmp_path / "hyperparams.json").write_text(json.dumps(config | {"dataset_average_activation_norm": norms}))
    tensors = {"encoder.weight": w.W.T, "encoder.bias": w.b, "decoder.weight": w.d.T, "decoder.bias": w.c}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "checkpoints" / "final.safetensors")
    s, t = (math.sqrt(D) / norm for norm in norms.values())
    f_BF = jump(s * rows() @ w.W + w.b, 0.2 * s)
    sae = holds(tmp_path, f_BF, (f_BF @ w.d + w.c) / t)
    assert sae.is_transcoder == transcoder
    as_trained = saelight.load(tmp_path, fold_normalisation=False)
    assert same(sae(rows()), as_trained(s * rows()) / t)


def test_goodfire(w, tmp_path):
    state = {
        "encoder_linear.weight": w.W.T,
        "encoder_linear.bias": w.b,
        "decoder_linear.weight": w.d.T,
        "decoder_linear.bias": w.c,
    }
    torch.save(state, tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    f_BF = torch.relu(w.pre(rows()))
    sae = holds(tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth", f_BF, f_BF @ w.d + w.c)
    assert sae.provenance.source["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert sae.provenance.source["hook"] == "model.layers.19"


def test_qwen_scope_and_where_its_k_is(w, tmp_path):
    place = tmp_path / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
    place.mkdir()
    torch.save({"W_enc": w.W.T, "W_dec": w.d.T, "b_enc": w.b, "b_dec": w.c}, place / "layer5.sae.pt")
    f_BF = topk(w.pre(rows()))
    sae = holds(place / "layer5.sae.pt", f_BF, f_BF @ w.d + w.c)
    assert sae.provenance.source["model"] == "Qwen/Qwen3-1.7B-Base"
    place.rename(tmp_path / "renamed")
    with pytest.raises(saelight.UserError, match="k is told by the folder's name alone"):
        saelight.load(tmp_path / "renamed" / "layer5.sae.pt")


def header(schema: int, activation: str) -> dict:
    params = {} if activation == "Relu" else {"top_k": K}
    return {"schema": schema, "cfg": {"activation": {"cls": activation, "params": params}}}


HEADERS = {
    "relu 5": (header(5, "Relu"), torch.relu),
    "topk 2": (header(2, "TopK"), topk),
    "batch topk 5": (header(5, "BatchTopK"), lambda h: jump(h, 0.4)),
    "batch topk 2": (header(2, "BatchTopK"), topk),
    "topk 1": ({"schema": 1, "cls": "TopK", "cfg": {"top_k": K}}, topk),
    "before any": ({"d_vit": D, "exp_factor": 2}, torch.relu),
}
"""By what they are, and their schema."""


@pytest.mark.parametrize("name", HEADERS)
def test_saev(name, w, tmp_path):
    first_line, activation = HEADERS[name]
    state = {"W_enc": w.W, "b_enc": w.b, "W_dec": w.d, "b_dec": w.c}
    if name == "batch topk 5":
        state["activation.threshold"] = torch.tensor(0.4)
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    with (tmp_path / "run" / "checkpoint" / "sae.pt").open("wb") as file:
        file.write(json.dumps(first_line | {"commit": "abc", "lib": "0.3"}).encode() + b"\n")
        torch.save(state, file)
    f_BF = activation(w.pre(rows()))
    sae = holds(tmp_path / "run", f_BF, f_BF @ w.d + w.c)
    assert (sae.provenance.name, sae.provenance.versions) == ("run", {"saev": "0.3"})


def openmoss(w, folder, pt=False, **changes):
    folder.mkdir(exist_ok=True)
    config = {"sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": "relu", "norm_activation": "inference"}
    config |= {"hook_point_in": "blocks.3.hook_resid_post", "hook_point_out": "blocks.3.hook_resid_post"} | changes
    (folder / "config.json").write_text(json.dumps(config))
    state = {"W_E": w.W, "b_E": w.b, "W_D": w.d, "b_D": w.c}
    norms = {config["hook_point_out"]: 5.0} | {config["hook_point_in"]: 3.0}
    state |= {f"dataset_average_activation_norm.{hook}": torch.tensor(norm) for hook, norm in norms.items()}
    if config["act_fn"] == "jumprelu":
        state["activation_function.log_jumprelu_threshold"] = w.theta.log()
    if pt:
        torch.save({"sae": state, "version": "2"}, folder / "sae_weights.pt")
    else:
        save_file(state, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("by_norm", [False, True])
@pytest.mark.parametrize("act_fn", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("how", ["inference", "dataset-wise"])
@pytest.mark.parametrize("transcoder", [False, True])
def test_openmoss(act_fn, by_norm, how, transcoder, w, tmp_path):
    changes = {"act_fn": act_fn, "sparsity_include_decoder_norm": by_norm, "norm_activation": how, "top_k": K}
    if transcoder:
        changes["hook_point_out"] = "blocks.3.hook_mlp_out"
    folder = openmoss(w, tmp_path / "sae", pt=by_norm, **changes)
    s, t = (math.sqrt(D) / 3, math.sqrt(D) / (5 if transcoder else 3)) if how == "dataset-wise" else (1.0, 1.0)
    n_F = w.d.norm(dim=1) if by_norm else torch.ones(F)
    h = (s * rows() @ w.W + w.b) * n_F
    f_BF = {"relu": torch.relu, "jumprelu": lambda h: jump(h, w.theta), "topk": topk}[act_fn](h) / n_F
    x_hat = (f_BF @ w.d + w.c) / t
    # The norms by which TopK selects are folded into the latents here.
    sae = holds(folder, f_BF * n_F if act_fn == "topk" else f_BF, x_hat)
    assert sae.provenance.source["hook_name"] == "blocks.3.hook_resid_post"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sae_type": "crosscoder"}, "a crosscoder dictionary has no variant here"),
        ({"use_glu_encoder": True}, "a gated linear dictionary"),
        ({"act_fn": "batchtopk"}, "make it jumprelu there first"),
        ({"norm_activation": "token-wise"}, "rescales by the token or the batch"),
        ({"expansion_factor": 3}, "W_E has shape"),
        ({"d_model": "16"}, "d_model is '16', which it cannot be"),
    ],
)
def test_what_openmoss_has_and_no_variant_here_is_refused(changes, says, w, tmp_path):
    with pytest.raises(saelight.UserError, match=says):
        read(openmoss(w, tmp_path / "sae", **changes))


@pytest.mark.parametrize("act_fn", ["relu", "jumprelu"])
def test_openmoss_leaves_thresholds_behind_when_it_folds(act_fn, w, tmp_path):
    """Its `standardize_parameters_of_dataset_norm`: b_E / s, b_D / s; W_D stays where both sides have one scale."""
    unfolded = openmoss(w, tmp_path / "unfolded", act_fn=act_fn, norm_activation="dataset-wise")
    s = math.sqrt(D) / 3
    w.b, w.c = w.b / s, w.c / s
    folded = openmoss(w, tmp_path / "folded", act_fn=act_fn)
    assert same(read(unfolded)(rows()), read(folded)(rows())) == (act_fn == "relu")


def in_openmoss(folder):
    """What llamascopium computes of a folder in mode inference."""
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "sae_weights.safetensors")
    assert int(config["d_model"] * config["expansion_factor"]) == len(state["b_E"])
    n_F = state["W_D"].norm(dim=1) if config["sparsity_include_decoder_norm"] else torch.ones(len(state["b_E"]))

    def encode(x):
        h = (x @ state["W_E"] + state["b_E"]) * n_F
        if config["act_fn"] == "jumprelu":
            return jump(h, state["activation_function.log_jumprelu_threshold"].exp()) / n_F
        return (topk(h, config["top_k"]) if config["act_fn"] == "topk" else torch.relu(h)) / n_F

    return encode, lambda x: encode(x) @ state["W_D"] + state["b_D"]


@pytest.mark.parametrize("d_out", [None, D])
@pytest.mark.parametrize("name", ["relu", "jump_relu_tanh", "topk", "batch_topk", "matryoshka_batch_topk"])
def test_what_is_written_for_openmoss(name, d_out, tmp_path):
    sae = trained(CONFIGS[name], d_out=d_out)
    write(sae, tmp_path / "out", to="openmoss")
    same_sae(sae, *in_openmoss(tmp_path / "out"), rows())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hook_point_out"] == "blocks.3.hook_mlp_out"


def in_circuit_tracer(file):
    """What circuit-tracer computes of a layer's file."""
    state = load_file(file)
    skip = state.get("W_skip", torch.zeros(D, D))
    theta = state.get("activation_function.threshold", torch.zeros(len(state["b_enc"])))

    def encode(x):
        return jump(torch.nn.functional.linear(x, state["W_enc"], state["b_enc"]), theta)

    return encode, lambda x: encode(x) @ state["W_dec"] + state["b_dec"] + x @ skip.T


@pytest.mark.parametrize(("name", "skip"), [("relu", True), ("jump_relu", False), ("matryoshka_batch_topk", True)])
def test_a_set_for_circuit_tracer(name, skip, tmp_path):
    config = with_skip(CONFIGS[name]) if skip else CONFIGS[name]
    saes = [trained(config, d_out=D, layer=layer) for layer in range(3)]
    for layer, sae in enumerate(saes):
        write(sae, tmp_path / "all" / f"of-{layer}")
    saelight.convert.convert(tmp_path / "all", tmp_path / "set", to="circuit_tracer")
    config = yaml.safe_load((tmp_path / "set" / "config.yaml").read_text())
    assert (config["model_kind"], config["model_name"]) == ("transcoder_set", "EleutherAI/pythia-70m")
    assert (config["feature_input_hook"], config["feature_output_hook"]) == ("mlp.hook_in", "hook_mlp_out")
    for layer, sae in enumerate(saes):
        file = tmp_path / "set" / f"layer_{layer}.safetensors"
        same_sae(sae, *in_circuit_tracer(file), rows())
        back = read(file)
        assert back.config == sae.config
        assert same(back(rows()), sae(rows()), 1e-6)
    with pytest.raises(saelight.UserError, match=r"3 inside \(layer_0, layer_1, layer_2\): give the path of one"):
        read(tmp_path / "set")
    made = saelight.convert.convert(tmp_path / "set", tmp_path / "back", to="saelight")
    assert [path.name for path in made.folders] == ["layer_0", "layer_1", "layer_2"]


def test_single_layers_as_they_are_published(w, tmp_path):
    tensors = {"W_enc": w.W.T.contiguous(), "W_dec": w.d, "b_enc": w.b, "b_dec": w.c}
    save_file(tensors, tmp_path / "layer_4.safetensors")
    f_BF = torch.relu(w.pre(rows()))
    sae = holds(tmp_path / "layer_4.safetensors", f_BF, f_BF @ w.d + w.c)
    assert sae.provenance.source["hook_name"] == "blocks.4.mlp.hook_in"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model_kind": "transcoder_set", "activation": "topk", "k": K}))
    f_BF = topk(w.pre(rows()))
    holds(tmp_path / "layer_4.safetensors", f_BF, f_BF @ w.d + w.c)
