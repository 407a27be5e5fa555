"""Folders that saelight writes open in SAELens, and SAELens's in saelight: the same latents and reconstructions."""

import importlib
import json

import pytest
import torch

import saelight
from saelight.convert import read, write
from saelight.saes import BatchTopK, Gated, GatedHardConcrete, HardConcrete, JumpReLU, MatchingPursuit, ReLU, TopK
from tests.conformance.peers.support import peer
from tests.support.conversions import CONFIGS, D, F, K, rows, same, same_sae, trained, with_skip

sae_lens = peer("sae_lens")
TRANSCODERS = ("relu", "jump_relu", "jump_relu_tanh", "batch_topk", "matryoshka_batch_topk", "matryoshka_relu")


@pytest.mark.parametrize("name", CONFIGS)
def test_an_autoencoder_opens(name, tmp_path):
    sae = trained(CONFIGS[name])
    write(sae, tmp_path / "out", to="sae_lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out")
    same_sae(sae, theirs.encode, theirs, rows())
    metadata = theirs.cfg.metadata
    assert metadata.model_name == "EleutherAI/pythia-70m"
    assert (metadata.hook_name, metadata.hf_hook_name) == ("blocks.3.hook_mlp_out", "gpt_neox.layers.3.mlp")
    assert (metadata.context_size, metadata.dataset_path) == (128, "some/text")
    # It would fold norms of rows itself, and finds none to fold, or refuses.
    if CONFIGS[name].__class__.__name__ not in ("TopK", "AbsTopK") and "topk" not in name:
        before = theirs.W_dec.clone()
        theirs.fold_W_dec_norm()
        assert same(before, theirs.W_dec, 1e-6)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", TRANSCODERS)
def test_a_transcoder_opens(name, skip, tmp_path):
    sae = trained(with_skip(CONFIGS[name]) if skip else CONFIGS[name], d_out=D - 4)
    write(sae, tmp_path / "out", to="sae_lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out")
    same_sae(sae, theirs.encode, theirs, rows())
    assert theirs.cfg.metadata.hook_name == "blocks.3.mlp.hook_in"
    assert theirs.cfg.metadata.hook_name_out == "blocks.3.hook_mlp_out"


OWN_VARIANTS = {
    "hard_concrete": HardConcrete(d_sae=F),
    "hard_concrete_free": HardConcrete(d_sae=F, input_dependent=False),
    "gated_hard_concrete": GatedHardConcrete(d_sae=F),
    "matching_pursuit": MatchingPursuit(d_sae=F, k=K),
}


def check_own(sae, folder) -> None:
    write(sae, folder, to="sae_lens")
    theirs, x = sae_lens.SAE.load_from_disk(folder), rows()
    assert torch.equal(sae.encode(x), theirs.encode(x))
    assert same(sae(x), theirs(x), 1e-6)
    theirs.save_model(folder / "again")
    assert torch.equal(sae_lens.SAE.load_from_disk(folder / "again").encode(x), sae.encode(x))
    back = read(folder / "again")
    assert back.config == sae.config
    assert torch.equal(back.encode(x), sae.encode(x))


@pytest.fixture
def registered():
    importlib.import_module("saelight.convert.in_sae_lens")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", OWN_VARIANTS)
def test_a_variant_that_it_has_not_opens_where_saelight_is(name, tmp_path):
    check_own(trained(OWN_VARIANTS[name]), tmp_path / "out")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["gated", "topk", "abs_topk", "matryoshka_topk", "hard_concrete", "gated_hard_concrete"])
def test_so_does_a_transcoder_that_it_has_not(name, skip, tmp_path):
    config = (CONFIGS | OWN_VARIANTS)[name]
    check_own(trained(with_skip(config) if skip else config, d_out=D - 4), tmp_path / "out")


def theirs(architecture: str, **settings):
    """An SAE of SAELens's own, away from its start."""
    torch.manual_seed(3)
    config = getattr(sae_lens, f"{architecture}Config")(d_in=D, d_sae=F, **settings)
    sae = getattr(sae_lens, architecture)(config)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name == "threshold":
                parameter.copy_(torch.rand(F))
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    sae.cfg.metadata.model_name = "gpt2"
    sae.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    sae.cfg.metadata.neuronpedia_id = "x"
    return sae


OWN = {
    "standard": ("StandardSAE", {}),
    "standard without b_dec": ("StandardSAE", {"apply_b_dec_to_input": False}),
    "gated": ("GatedSAE", {}),
    "gated without b_dec": ("GatedSAE", {"apply_b_dec_to_input": False}),
    "jumprelu": ("JumpReLUSAE", {"apply_b_dec_to_input": False}),
    "topk": ("TopKSAE", {"k": K}),
    "topk by norms": ("TopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "abstopk": ("AbsTopKSAE", {"k": K}),
    "abstopk by norms": ("AbsTopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "transcoder": ("Transcoder", {"d_out": D - 4, "apply_b_dec_to_input": False}),
    "skip transcoder": ("SkipTranscoder", {"d_out": D - 4, "apply_b_dec_to_input": False}),
    "jumprelu transcoder": ("JumpReLUTranscoder", {"d_out": D - 4, "apply_b_dec_to_input": False}),
    "jumprelu skip transcoder": ("JumpReLUSkipTranscoder", {"d_out": D - 4, "apply_b_dec_to_input": False}),
}


@pytest.mark.parametrize("name", OWN)
def test_its_own_folder_opens_here_and_goes_back(name, tmp_path):
    architecture, settings = OWN[name]
    sae = theirs(architecture, **settings)
    sae.save_model(tmp_path / "theirs")
    ours, x = read(tmp_path / "theirs"), rows()
    f_BF = sae.encode(x)
    assert 0.02 < (f_BF != 0).double().mean() < 0.8
    assert same(f_BF, ours.encode(x))
    assert same(sae(x), ours(x))
    assert ours.provenance.source["model"] == "gpt2"
    assert ours.provenance.source["hook"] == "transformer.h.2"
    write(ours, tmp_path / "again", to="sae_lens")
    again = sae_lens.SAE.load_from_disk(tmp_path / "again")
    assert same(sae(x), again(x))
    assert again.cfg.metadata.neuronpedia_id == "x"


@pytest.mark.parametrize(
    ("architecture", "settings", "variant"),
    [
        ("BatchTopKTrainingSAE", {"k": K}, BatchTopK),
        ("MatryoshkaBatchTopKTrainingSAE", {"k": K, "matryoshka_widths": [10, F]}, BatchTopK),
        ("TopKTrainingSAE", {"k": K}, TopK),
        ("JumpReLUTrainingSAE", {}, JumpReLU),
        ("StandardTrainingSAE", {}, ReLU),
        ("GatedTrainingSAE", {}, Gated),
    ],
)
def test_a_checkpoint_of_its_training_opens_here(architecture, settings, variant, tmp_path):
    sae = theirs(architecture, **settings)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    sae.save_model(tmp_path / "checkpoint")
    sae.save_inference_model(tmp_path / "final")
    final, ours, x = sae_lens.SAE.load_from_disk(tmp_path / "final"), read(tmp_path / "checkpoint"), rows()
    assert type(ours.config) is variant
    assert same(final(x), ours(x))


def test_one_from_before_version_6_opens_here(tmp_path):
    theirs("TopKSAE", k=K).save_model(tmp_path / "old")
    old = {"d_in": D, "d_sae": F, "dtype": "float32", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    old |= {"model_name": "gpt2", "hook_point": "blocks.2.hook_resid_post", "context_size": 64}
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(old))
    sae, ours, x = sae_lens.SAE.load_from_disk(tmp_path / "old"), saelight.load(tmp_path / "old"), rows()
    assert same(sae.encode(x), ours.encode(x))
    assert ours.provenance.source["hook_name"] == "blocks.2.hook_resid_post"
    assert ours.provenance.source["context"] == 64


@pytest.mark.parametrize(
    ("architecture", "settings", "says"),
    [
        ("StandardSAE", {"normalize_activations": "layer_norm"}, "rescales every token by itself"),
        ("StandardSAE", {"normalize_activations": "expected_average_only_in"}, "fold it first"),
        ("StandardSAE", {"normalize_activations": "covariance_whitening"}, "not folded yet"),
        ("MatchingPursuitSAE", {}, "neither says the other's"),
    ],
)
def test_what_has_no_form_here_is_refused(architecture, settings, says, tmp_path):
    theirs(architecture, **settings).save_model(tmp_path / "theirs")
    with pytest.raises(saelight.UserError, match=says):
        read(tmp_path / "theirs")


def test_its_reader_of_sparsify_folders_fails_on_those_of_today(tmp_path):
    """The folder is right (test_convert_sparsify.py); it transposes a W_dec that is (F, D) already."""
    from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader

    write(trained(CONFIGS["topk"]), tmp_path / "layers.3", to="sparsify")
    with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
        sae_lens.SAE.load_from_disk(tmp_path / "layers.3", converter=sparsify_disk_loader)
