"""To another format and back: the same SAE, bit for bit where nothing is folded, with all its fields."""

import json

import pytest
import torch

import saelight
from saelight.convert import read, write
from saelight.convert.formats import FORMATS
from tests.support.conversions import CONFIGS, D, rows, same, trained, with_skip

AUTOENCODERS = [
    (to, name)
    for to in ("saelight", "sae_lens", "dictionary_learning", "sparsify", "openmoss")
    for name in CONFIGS
    if (to != "sparsify" or name in ("topk", "topk_unit", "matryoshka_topk"))
    and not (name == "abs_topk" and to in ("dictionary_learning", "openmoss"))
    and not (name == "gated" and to == "openmoss")
]
TRANSCODERS = [
    ("sae_lens", "relu", True),
    ("sae_lens", "batch_topk", True),
    ("sparsify", "topk", True),
    ("openmoss", "jump_relu", False),
    ("openmoss", "topk", False),
    ("saelight", "gated", True),
]


FOLDED_BEFORE = ("topk", "abs_topk", "batch_topk", "matryoshka_topk", "matryoshka_batch_topk", "matryoshka_random")
"""TopK kinds of free rows, which have norm 1 since the SAE was loaded. Other rows, and those that were held at norm 1 in the
units of the training data, have another in the model's own, until they are folded for those who want them so."""


def bits_stay(to: str, name: str) -> bool:
    # In OpenMOSS's, b_dec moves into b_enc and out of it.
    return to in ("saelight", "sparsify") or (to != "openmoss" and name in FOLDED_BEFORE)


def check(sae, back, exact: bool) -> None:
    """The same function, fields and origin, and where so stated the same bits."""
    x, norms_F = rows(), sae.W_dec.norm(dim=1) / back.W_dec.norm(dim=1)
    assert same(sae(x), back(x), 3e-6)
    assert same(sae.encode(x) * norms_F, back.encode(x), 3e-6)
    assert back.config == sae.config
    assert type(back) is type(sae)
    for fact in ("name", "seed", "training"):
        assert getattr(back.provenance, fact) == getattr(sae.provenance, fact)
    assert back.provenance.source.items() >= sae.provenance.source.items()
    if exact:
        own, other = (dict(each.named_parameters()) for each in (sae, back))
        assert all(torch.equal(tensor, other[name]) for name, tensor in own.items())


@pytest.mark.parametrize(("to", "name"), AUTOENCODERS)
def test_an_autoencoder_comes_back(to, name, tmp_path):
    sae = trained(CONFIGS[name])
    write(sae, tmp_path / "out", to=to)
    back = saelight.load(tmp_path / "out")
    check(sae, back, bits_stay(to, name))
    # What was brought to norm 1 once stays as it is.
    write(back, tmp_path / "again", to=to)
    check(back, read(tmp_path / "again"), to != "openmoss" and not (to == "dictionary_learning" and "jump" in name))


@pytest.mark.parametrize(("to", "name", "skip"), TRANSCODERS)
def test_a_transcoder_comes_back(to, name, skip, tmp_path):
    sae = trained(with_skip(CONFIGS[name]) if skip else CONFIGS[name], d_out=D)
    write(sae, tmp_path / "out", to=to)
    back = read(tmp_path / "out")
    check(sae, back, to == "saelight" or name in ("topk", "batch_topk"))
    assert back.provenance.target_source.items() >= sae.provenance.target_source.items()


def test_without_what_lies_beside_it_the_weights_alone_are_read(tmp_path):
    sae = trained(CONFIGS["matryoshka_batch_topk"])
    write(sae, tmp_path / "out", to="sae_lens")
    (tmp_path / "out" / "saelight.json").unlink()
    back, x = read(tmp_path / "out"), rows()
    assert type(back.config) is saelight.JumpReLU
    assert same(sae(x), back(x))
    assert back.provenance.source["hook_name"] == "blocks.3.hook_mlp_out"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_sae": 41}, "is not these weights': remove it"),
        ({"init_args": {"d_sae": 40, "k": 5}}, "is not these weights': remove it"),
        ({"class_path": "saelight.saes.relu.ReLU", "init_args": {"d_sae": 40}}, "is not these weights': remove it"),
        ({"class_path": "os.system"}, "no SAE class 'os.system' is imported"),
        ({"version": 2}, "is of a newer saelight"),
        ({"seed": None}, "does not describe an SAE: seed: expected int"),
        ({"more": 1}, "has no field 'more'"),
    ],
)
def test_what_lies_beside_it_has_to_be_its_own(change, says, tmp_path):
    write(trained(CONFIGS["topk"]), tmp_path / "out", to="sparsify")
    path = tmp_path / "out" / "saelight.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(saelight.UserError, match=says):
        read(tmp_path / "out")


def test_weights_that_were_changed_since_are_those_that_are_read(tmp_path):
    from safetensors.torch import load_file, save_file

    write(trained(CONFIGS["topk"]), tmp_path / "out", to="sparsify")
    tensors = load_file(path := tmp_path / "out" / "sae.safetensors")
    save_file(tensors | {"b_dec": torch.ones(D)}, path)
    assert torch.equal(read(tmp_path / "out").b_dec, torch.ones(D))
    save_file(tensors | {"W_dec": 2 * tensors["W_dec"]}, path)
    with pytest.raises(saelight.UserError, match=r"saelight.json is not these weights'"):
        read(tmp_path / "out")


def test_an_sae_that_was_just_built_has_a_name_and_no_source(tmp_path):
    sae = saelight.TopK(d_sae=32, k=4).build(D)
    write(sae, tmp_path / "mine", to="saelight")
    back = saelight.load(tmp_path / "mine")
    assert back.provenance.name == "mine"
    assert back.provenance.source == {}


def test_the_command_knows_every_format():
    from saelight.cli.convert_command import READ, WRITTEN

    assert set(READ) == FORMATS.keys()
    assert set(WRITTEN) == {name for name, format in FORMATS.items() if format.write or format.write_set}
