"""Folders of other libraries that are damaged, incomplete or hostile: one line each, and nothing is run."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import saelight
from saelight.convert import read, write
from tests.support.conversions import CONFIGS, D, F, trained


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One folder of each format that is written, without what saelight leaves beside it."""
    folder = tmp_path_factory.mktemp("good")
    for to in ("sae_lens", "dictionary_learning", "sparsify", "openmoss"):
        write(trained(CONFIGS["topk"]), folder / to, to=to)
        (folder / to / "saelight.json").unlink()
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "good")


def line(path) -> str:
    """The one line by which a path is refused."""
    with pytest.raises(saelight.UserError) as refused:
        read(path)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


WEIGHTS = {
    "sae_lens": "sae_weights.safetensors",
    "dictionary_learning": "ae.pt",
    "sparsify": "sae.safetensors",
    "openmoss": "sae_weights.safetensors",
}
CONFIG_FILES = {
    "sae_lens": "cfg.json",
    "dictionary_learning": "config.json",
    "sparsify": "cfg.json",
    "openmoss": "config.json",
}


def change(folder, to, **changed) -> None:
    """Write weights anew, some of them changed; None takes one away."""
    path = folder / to / WEIGHTS[to]
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    tensors = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


NAMES = {"sae_lens": "b_dec", "dictionary_learning": "b_dec", "sparsify": "b_dec", "openmoss": "b_D"}


@pytest.mark.parametrize("to", WEIGHTS)
def test_weights_that_do_not_fit(to, folder):
    name = NAMES[to]
    change(folder, to, **{name: torch.zeros(D + 1)})
    assert f"{name} has shape [17], where the others make it [16]" in line(folder / to)
    change(folder, to, **{name: None})
    assert f"has no tensor {name}" in line(folder / to)
    change(folder, to, **{name: torch.full((D,), torch.nan)})
    assert "b_dec holds NaN or infinity" in line(folder / to)
    assert saelight.load(folder / to, allow_nan=True).b_dec.isnan().all()
    change(folder, to, **{name: torch.zeros(D), "more": torch.zeros(1)})
    assert "holds more, which no reader here knows" in line(folder / to)


@pytest.mark.parametrize("to", WEIGHTS)
@pytest.mark.parametrize("size", [0, 7, 300])
def test_weights_that_are_cut_off(to, size, folder):
    os.truncate(folder / to / WEIGHTS[to], size)
    assert "cannot be read" in (text := line(folder / to)) or "damaged" in text


@pytest.mark.parametrize("to", WEIGHTS)
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"[" * 100_000, b"\xff\xfe\x00", b"{}"], ids=range(7))
def test_a_config_that_is_none(to, text, folder):
    (folder / to / CONFIG_FILES[to]).write_bytes(text)
    line(folder / to)


@pytest.mark.parametrize(
    ("to", "changes", "says"),
    [
        ("sae_lens", {"architecture": "temporal"}, "architecture 'temporal' has no variant here"),
        ("sae_lens", {"architecture": 3}, "architecture is '3', which it cannot be"),
        ("sae_lens", {"d_in": 17}, "W_enc has shape [16, 40]"),
        ("sae_lens", {"d_sae": "x"}, "d_sae is 'x'"),
        ("sae_lens", {"k": None}, "k is 'None', which it cannot be"),
        ("sae_lens", {"k": 41}, "k = 41 exceeds d_sae = 40"),
        ("sae_lens", {"k": 0}, "makes no SAE"),
        ("sae_lens", {"normalize_activations": "layer_norm"}, "rescales every token by itself"),
        ("sae_lens", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input is '1'"),
        ("sae_lens", {"finetuning_scaling_factor": True}, "multiply it into the weights first"),
        ("dictionary_learning", {"trainer": {}}, "lacks dict_class"),
        ("dictionary_learning", {"trainer": {"dict_class": "CrossCoder"}}, "no dict_class 'CrossCoder' is read"),
        ("dictionary_learning", {"trainer": {"dict_class": "AutoEncoder"}}, "has no tensor bias"),
        ("sparsify", {"activation": "groupmax"}, "activation 'groupmax' has no variant here"),
        ("sparsify", {"num_latents": 41}, "states 41 latents, sae.safetensors has 40"),
        ("sparsify", {"d_in": 8}, "where the others make it [40, 8]"),
        ("sparsify", {"k": True}, "k is 'True'"),
    ],
)
def test_what_a_config_says_and_cannot_be(to, changes, says, folder):
    path = folder / to / CONFIG_FILES[to]
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert says in line(folder / to)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_no_code_is_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = folder / "dictionary_learning" / "ae.pt"
    torch.save({"encoder.weight": Hostile()}, path)
    assert "nothing in it is run" in line(path.parent)
    path.write_bytes(pickle.dumps(Hostile()))
    assert "nothing in it is run" in line(path.parent)
    (tmp_path / "sae.pt").write_bytes(b'{"schema": 5, "cfg": {"activation": {"cls": "Relu"}}}\n' + pickle.dumps(Hostile()))
    assert "nothing in it is run" in line(tmp_path / "sae.pt")
    np.savez(tmp_path / "params.npz", W_enc=np.array([Hostile()], dtype=object), allow_pickle=True)
    assert "cannot be read" in line(tmp_path / "params.npz")
    torch.save({"encoder_linear.weight": Hostile()}, tmp_path / "x.pt")
    assert "nothing in it is run" in line(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sae.pt", b'{"schema": 6}\n', "has schema 6, those up to 5 are read"),
        ("sae.pt", b'{"schema": 5}\n', "activation None is none of saev's"),
        ("sae.pt", b'{"schema": \n', "does not begin with a line of JSON"),
        ("params.npz", b"PK\x03\x04", "cannot be read"),
        ("params.safetensors", b"", "cannot be read"),
    ],
)
def test_files_that_are_none(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert says in line(tmp_path / name)


def test_a_cross_layer_transcoder_is_none_of_these(tmp_path):
    tensors = {"w_enc": torch.ones(D, F), "w_dec": torch.ones(F, 3, D), "b_enc": torch.ones(F), "b_dec": torch.ones(D)}
    save_file(tensors, tmp_path / "params.safetensors")
    assert "is a cross-layer transcoder, which writes to 3 layers" in line(tmp_path)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere", "there is no such file or folder"),
        (".", "holds no trained SAE of a known format; those read are saelight, sae_lens, dictionary_learning, sparsify"),
        ("s3://bucket/sae", "is not on this machine: give a path on it, or hf://user/repo/path"),
        ("x" * 300, "cannot be read"),
        ("a\0b", "cannot be read"),
    ],
)
def test_a_path_that_is_none(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in line(path)


def test_the_format_that_is_asked_for_is_the_only_one(folder):
    with pytest.raises(saelight.UserError, match="of sparsify: leave the format out"):
        read(folder / "sae_lens", format="sparsify")
    with pytest.raises(saelight.UserError, match="no format 'sae_lense' is read; did you mean 'sae_lens'"):
        read(folder / "sae_lens", format="sae_lense")
    with pytest.raises(saelight.UserError, match="no format 'goodfire' is written"):
        write(trained(CONFIGS["relu"]), folder / "new", to="goodfire")


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    sae = trained(CONFIGS["relu"])
    for to, says in (
        ("sparsify", "ReLU has no form in sparsify: it has TopK only"),
        ("circuit_tracer", "it traces transcoders"),
    ):
        with pytest.raises(saelight.UserError, match=says):
            write(sae, tmp_path / "new" / "out", to=to)
    sae.b_dec[0] = torch.nan
    with pytest.raises(saelight.UserError, match="b_dec holds NaN"):
        write(sae, tmp_path / "new" / "out", to="sae_lens")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    (tmp_path / "there").write_text("mine")
    with pytest.raises(saelight.UserError, match="exists: name another folder, or remove it"):
        write(trained(CONFIGS["relu"]), tmp_path / "there", to="sae_lens")
    with pytest.raises(saelight.UserError, match="cannot be made"):
        write(trained(CONFIGS["relu"]), tmp_path / "there" / "in", to="sae_lens")
    assert (tmp_path / "there").read_text() == "mine"


def test_a_variant_of_ones_own_has_no_form(tmp_path):
    from saelight.saes import topk

    class TopK(topk.TopK):
        pass

    class Mine(topk.TopKSAE, config=TopK):
        pass

    with pytest.raises(saelight.UserError, match=r"test_refused.*TopK has no form in sparsify"):
        write(TopK(d_sae=F, k=4).build(D), tmp_path / "out", to="sparsify")
