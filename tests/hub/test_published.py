"""Collections that others have published, by their names on the hub, and the formats' files by their names alone."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

import saelight
from saelight.convert import formats, write
from saelight.convert.layouts import ROOT, NamedFiles
from tests.support.conversions import CONFIGS, D, F, rows, trained


def tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: 0.3 * torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def npz(**shapes: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: tensor.numpy() for name, tensor in tensors(**shapes).items()})
    return file.getvalue()


def pt(**shapes: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors(**shapes), file)
    return file.getvalue()


def safe(**shapes: tuple[int, ...]) -> bytes:
    return save(tensors(**shapes))


def text(**content: Any) -> bytes:
    return json.dumps(content).encode()


GEMMA = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
GEMMA_2 = {"w_enc": (D, F), "w_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
PLAIN = {name: shape for name, shape in GEMMA.items() if name != "threshold"}
LINEAR = {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "decoder.bias": (D,)}
SPARSIFY = {"encoder.weight": (F, D), "encoder.bias": (F,), "W_dec": (F, D), "b_dec": (D,)}
LAYER = {"W_enc": (F, D), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
QWEN = {"W_enc": (F, D), "W_dec": (D, F), "b_enc": (F,), "b_dec": (D,)}
AUTOENCODER = {name.replace("decoder.bias", "bias"): shape for name, shape in LINEAR.items()}
GOODFIRE = {"encoder_linear.weight": (F, D), "encoder_linear.bias": (F,)}
GOODFIRE |= {"decoder_linear.weight": (D, F), "decoder_linear.bias": (D,)}
LLAMA = {
    "hook_point_in": "blocks.15.hook_resid_post",
    "hook_point_out": "blocks.15.hook_resid_post",
    "jump_relu_threshold": 0.4,
    "dataset_average_activation_norm": {"in": 3.0, "out": 3.0},
}
SAEV = {"schema": 1, "cfg": {"activation": {"cls": "Relu"}}}

PUBLISHED: dict[str, tuple[str, Callable[[], dict[str, bytes]], int, str | None, str | None]] = {
    "google/gemma-scope-2b-pt-res": (
        "layer_20/width_16k/average_l0_71",
        lambda: {f"layer_20/width_16k/average_l0_{l0}/params.npz": npz(**GEMMA) for l0 in (20, 71)},
        1,
        "gemma-2-2b",
        "model.layers.20",
    ),
    "google/gemma-scope-2b-pt-transcoders": (
        "layer_3/width_16k/average_l0_9/params.npz",
        lambda: {"layer_3/width_16k/average_l0_9/params.npz": npz(**GEMMA)},
        1,
        "gemma-2-2b",
        None,
    ),
    "google/gemma-scope-2-1b-pt": (
        "resid_post/layer_13_width_16k_l0_medium",
        lambda: {
            "resid_post/layer_13_width_16k_l0_medium/params.safetensors": safe(**GEMMA_2),
            "resid_post/layer_13_width_16k_l0_medium/config.json": text(
                architecture="jump_relu", model_name="google/gemma-3-1b-pt", hf_hook_point_in="model.layers.13.output"
            ),
            "resid_post/layer_13_width_16k_l0_small/params.safetensors": b"never asked for",
        },
        2,
        "google/gemma-3-1b-pt",
        "model.layers.13.output",
    ),
    "fnlp/Llama3_1-8B-Base-LXR-8x": (
        "Llama3_1-8B-Base-L15R-8x",
        lambda: {
            "Llama3_1-8B-Base-L15R-8x/hyperparams.json": text(**LLAMA),
            "Llama3_1-8B-Base-L15R-8x/checkpoints/final.safetensors": safe(**LINEAR),
            "Llama3_1-8B-Base-L15R-8x/lm_config.json": text(model_name="meta-llama/Llama-3.1-8B"),
        },
        2,
        "meta-llama/Llama-3.1-8B",
        "model.layers.15",
    ),
    "EleutherAI/sae-llama-3-8b-32x": (
        "layers.10",
        lambda: {
            "layers.10/cfg.json": text(d_in=D, k=4, num_latents=F, activation="topk"),
            "layers.10/sae.safetensors": safe(**SPARSIFY),
            "layers.11/sae.safetensors": b"never asked for",
            "config.json": text(model="meta-llama/Meta-Llama-3-8B", dataset="togethercomputer/RedPajama", ctx_len=2048),
        },
        3,
        "meta-llama/Meta-Llama-3-8B",
        "layers.10",
    ),
    "mwhanna/qwen3-4b-transcoders": (
        "layer_10.safetensors",
        lambda: {
            **{f"layer_{i}.safetensors": safe(**LAYER) for i in (1, 10)},
            "config.yaml": yaml.safe_dump({"model_name": "Qwen/Qwen3-4B", "model_kind": "transcoder_set"}).encode(),
        },
        2,
        "Qwen/Qwen3-4B",
        "model.layers.10.mlp.input",
    ),
    "Goodfire/Llama-3.1-8B-Instruct-SAE-l19": (
        "",
        lambda: {"Llama-3.1-8B-Instruct-SAE-l19.pth": pt(**GOODFIRE), "README.md": b"# An SAE"},
        1,
        "meta-llama/Llama-3.1-8B-Instruct",
        "model.layers.19",
    ),
    "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50": (
        "layer10.sae.pt",
        lambda: {f"layer{i}.sae.pt": pt(**QWEN | ({} if i == 10 else {"odd": (1,)})) for i in (1, 10)},
        1,
        "Qwen/Qwen3-1.7B-Base",
        "model.layers.10",
    ),
    "somebody/pythia-saes": (
        "layer_3/trainer_0/checkpoints/ae_1000.pt",
        lambda: {
            "layer_3/trainer_0/checkpoints/ae_1000.pt": pt(
                **{k.replace("decoder.bias", "bias"): v for k, v in LINEAR.items()}
            ),
            "layer_3/trainer_0/config.json": text(trainer={"dict_class": "AutoEncoder", "lm_name": "a/pythia", "layer": 3}),
        },
        2,
        "a/pythia",
        None,
    ),
    "osunlp/vision-saes": (
        "",
        lambda: {"checkpoint/sae.pt": text(**SAEV) + b"\n" + pt(**PLAIN)},
        1,
        None,
        None,
    ),
}
"""By repository: the path, its files, how many of them are the SAE, and the model and hook that it comes from."""


@pytest.mark.parametrize("repo", PUBLISHED)
def test_published_saes_open_by_name(repo, hub, tmp_path):
    path, make, n_files, model, hook = PUBLISHED[repo]
    if "layer10.sae.pt" in path:  # k is in the repository's name: 50 of 40 latents would be none
        repo = repo.replace("L0_50", "L0_5")
    files = make()
    hub.publish(repo, files)
    sae = saelight.load(f"hf://{repo}/{path}")
    assert hub.count("GET", f"/{repo}/resolve/") == n_files
    local = tmp_path / repo
    for name, data in files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(data)
    same = saelight.load(local / path)
    assert torch.equal(same(rows()), sae(rows()))
    assert sae.is_transcoder == ("transcoder" in repo)
    source = sae.provenance.source
    assert (source.get("model"), hook and source.get("hook")) == (model, hook)
    assert source.pop("downloaded_from").startswith(f"hf://{repo}@")
    assert source == same.provenance.source


def test_names_alone_find_what_the_files_hold(tmp_path):
    """Of folders that saelight writes in every format, and of those above."""
    for to in formats.FORMATS.values():
        if to.write or to.write_set:
            config = CONFIGS["topk" if to.name == "sparsify" else "relu"]
            write(trained(config, d_out=D if to.write_set else None, layer=0), tmp_path / to.name, to=to.name)
    for repo, (_, make, *_) in PUBLISHED.items():
        for name, data in make().items():
            if data != b"never asked for":
                file = tmp_path / repo.replace("/", "--") / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    found = formats.inside_tree(NamedFiles(files), ROOT)
    by_names = {name: (format.name, str(path)) for name, (format, path) in found.items()}
    here = formats.inside(tmp_path)
    by_files = {name: (one.format.name, str(one.path.relative_to(tmp_path))) for name, one in here.items()}
    assert by_names == by_files
    assert len({format for format, _ in by_files.values()}) == len(formats.FORMATS)


def test_every_file_that_a_reader_opens_is_in_a_layout(tmp_path, monkeypatch):
    """What `hf://` downloads is what reading takes."""
    opened: list[Path] = []
    monkeypatch.setattr("saelight.convert.files_of_tensors._regular", opened.append)
    for repo, (path, make, *_) in PUBLISHED.items():
        folder = tmp_path / repo.replace("L0_50", "L0_5")
        files = {name: data for name, data in make().items() if data != b"never asked for"}
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        found = formats.at(folder / path) or next(iter(formats.inside(folder).values()))
        opened.clear()
        found.read()
        relative = {file.relative_to(folder).as_posix() for file in opened}
        assert relative <= set(NamedFiles([*files]).files_of(found.format, ROOT / found.path.relative_to(folder).as_posix()))
