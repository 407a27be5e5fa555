"""Folders that saelight writes open in dictionary_learning, and its own here: the same latents and reconstructions."""

import json

import pytest
import torch

import saelight
from saelight.convert import read, write
from tests.conformance.peers.support import peer
from tests.support.conversions import CONFIGS, D, F, K, rows, same, same_sae, trained

peer("dictionary_learning")
utils = peer("dictionary_learning.utils")
WRITTEN = {
    "relu": "AutoEncoder",
    "gated": "GatedAutoEncoder",
    "jump_relu": "JumpReluAutoEncoder",
    "jump_relu_tanh": "JumpReluAutoEncoder",
    "topk": "AutoEncoderTopK",
    "topk_unit": "AutoEncoderTopK",
    "batch_topk": "BatchTopKSAE",
    "matryoshka_topk": "AutoEncoderTopK",
    "matryoshka_batch_topk": "MatryoshkaBatchTopKSAE",
    "matryoshka_random": "BatchTopKSAE",
    "matryoshka_relu": "AutoEncoder",
    "matryoshka_jump_relu": "JumpReluAutoEncoder",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_autoencoder_opens(name, tmp_path, capsys):
    sae = trained(CONFIGS[name])
    write(sae, tmp_path / "out", to="dictionary_learning")
    theirs, config = utils.load_dictionary(str(tmp_path / "out"), "cpu")
    assert type(theirs).__name__ == WRITTEN[name]
    same_sae(sae, theirs.encode, theirs, rows())
    assert "Normalizing" not in capsys.readouterr().out  # rows have norm 1
    trainer = config["trainer"]
    assert (trainer["lm_name"], trainer["layer"], trainer["activation_dim"]) == ("EleutherAI/pythia-70m", 3, D)
    assert config["buffer"]["ctx_len"] == 128


def away(ae):
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in ae.named_parameters():
            if name == "threshold":
                parameter.copy_(torch.rand(F))
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return ae


def save(ae, folder, **trainer):
    folder.mkdir(parents=True)
    torch.save(ae.state_dict(), folder / "ae.pt")
    facts = {"dict_class": type(ae).__name__, "lm_name": "gpt2", "layer": 2} | trainer
    (folder / "config.json").write_text(json.dumps({"trainer": facts, "buffer": {"ctx_len": 64}}))
    return folder


def own(name: str):
    modules = ("dictionary", "trainers.top_k", "trainers.batch_top_k", "trainers.matryoshka_batch_top_k")
    kind = next(getattr(module, name) for m in modules if hasattr(module := peer(f"dictionary_learning.{m}"), name))
    settings = {"AutoEncoderTopK": [K], "BatchTopKSAE": [K], "MatryoshkaBatchTopKSAE": [K, [8, 12, 20]]}.get(name, [])
    return away(kind(D, F, *settings))


@pytest.mark.parametrize(
    "name",
    [
        "AutoEncoder",
        "AutoEncoderNew",
        "GatedAutoEncoder",
        "JumpReluAutoEncoder",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
    ],
)
@pytest.mark.parametrize("threshold", [-1.0, 0.6])
def test_its_own_folder_opens_here(name, threshold, tmp_path):
    ae = own(name)
    if "k" in dict(ae.named_buffers()):
        ae.threshold.fill_(threshold)
    folder = save(ae, tmp_path / "trainer_0", **({"k": K} if hasattr(ae, "k") else {}))
    theirs, _ = utils.load_dictionary(str(folder), "cpu")
    ours, x = read(folder), rows()
    assert same(theirs.encode(x), ours.encode(x))
    assert same(theirs(x), ours(x))
    assert ours.provenance.source["hook"] == "transformer.h.2"
    assert ours.provenance.source["context"] == 64


def test_the_groups_of_matryoshka_come_along_and_go_back(tmp_path):
    ae = own("MatryoshkaBatchTopKSAE")
    write(read(save(ae, tmp_path / "trainer_0", k=K)), tmp_path / "back", to="dictionary_learning")
    state = torch.load(tmp_path / "back" / "ae.pt", weights_only=True)
    assert state["group_sizes"].tolist() == [8, 12, 20]
    assert all(torch.equal(tensor, state[name]) for name, tensor in ae.state_dict().items())


@pytest.mark.parametrize("name", ["AutoEncoder", "GatedAutoEncoder", "JumpReluAutoEncoder", "BatchTopKSAE"])
def test_a_backup_of_its_training_opens_as_it_will_be_saved(name, tmp_path):
    ae = own(name)
    folder = save(ae, tmp_path / "trainer_0", k=K)
    torch.save({"step": 5, "ae": ae.state_dict(), "optimizer": {}, "config": {}, "norm_factor": 3.0}, folder / "ae.pt")
    ours, x = read(folder), rows()
    ae.scale_biases(3.0)
    assert same(ae(x), ours(x))


def test_a_checkpoint_of_its_training_has_its_config_a_folder_up(tmp_path):
    ae = own("GatedAutoEncoder")
    folder = save(ae, tmp_path / "trainer_0")
    (folder / "checkpoints").mkdir()
    (folder / "ae.pt").rename(folder / "checkpoints" / "ae_100.pt")
    x = rows()
    assert same(ae(x), saelight.load(folder / "checkpoints" / "ae_100.pt")(x))


def test_saelens_does_not_open_its_autoencoder_new(tmp_path):
    """SAELens looks for a `bias` that this class calls decoder.bias: by way of saelight it opens."""
    sae_lens, ae = peer("sae_lens"), own("AutoEncoderNew")
    write(read(save(ae, tmp_path / "trainer_0")), tmp_path / "out", to="sae_lens")
    x = rows()
    assert same(ae(x), sae_lens.SAE.load_from_disk(tmp_path / "out")(x))
