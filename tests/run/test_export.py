"""The published folder of an SAE: what it holds, and how a bad one is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import saelight
from saelight.ops.normalisation import Normalisation
from saelight.run import export
from tests.support.variants import VARIANTS

UNITS = Normalisation("standard", 0.5, torch.linspace(-3, 3, 16).double())
TARGETS = Normalisation("rms", 0.25)


def write(variant, folder, d_out=None):
    """An SAE away from its start, written to its folder."""
    sae = VARIANTS[variant].build(16, seed=1, d_out=d_out)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(0.1 * torch.randn_like(p))
    facts = {"name": "a", "seed": 1, "source": {}, "training": {"state": "finished"}}
    export.write(sae, folder, normalisation=UNITS, target_normalisation=TARGETS if d_out else None, **facts)
    return folder


@pytest.fixture(params=VARIANTS)
def each_folder(request, tmp_path):
    return write(request.param, tmp_path / "a")


@pytest.fixture
def folder(tmp_path):
    return write("gated", tmp_path / "a")


def latents(exact, x_BD, scale):
    """Of the published SAE: free rows of TopK kinds are brought to norm 1."""
    norms_F = getattr(exact, "norms", None)
    return exact.encode(x_BD) * (1.0 if norms_F is None else norms_F / scale)


@pytest.mark.parametrize("variant", [name for name, config in VARIANTS.items() if config.build(16).transcodes])
def test_a_loaded_transcoder_gives_the_models_own_targets(variant, tmp_path):
    folder = write(variant, tmp_path / "a", d_out=10)
    folded, exact = saelight.load(folder), saelight.load(folder, fold_normalisation=False)
    raw = 2 * torch.randn(5, 16)
    torch.testing.assert_close(folded.encode(raw), latents(exact, UNITS(raw), 0.25))
    torch.testing.assert_close(folded(raw), exact(UNITS(raw)) / 0.25)


def test_only_inference_tensors_are_published(each_folder):
    sae = saelight.load(each_folder)
    thresholds = {name for name, _ in sae.named_buffers()} & {"threshold"}
    tensors = load_file(each_folder / "sae.safetensors")
    assert torch.equal(tensors.pop("normalisation.mean"), UNITS.mean_D)
    assert tensors.keys() - {"scale", "origin"} == dict(sae.named_parameters()).keys() | thresholds
    assert [path.name for path in each_folder.parent.iterdir()] == ["a"]


def test_a_loaded_sae_is_plain_and_takes_the_models_own_activations(each_folder):
    folded, exact = saelight.load(each_folder), saelight.load(each_folder, fold_normalisation=False)
    raw = 2 * torch.randn(5, 16)
    torch.testing.assert_close(folded.encode(raw), latents(exact, UNITS(raw), 0.5))
    torch.testing.assert_close(folded(raw), exact(UNITS(raw)) / 0.5 + UNITS.mean_D.float())
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder, name):
    path = folder / "sae.safetensors"
    save_file({key: tensor for key, tensor in load_file(path).items() if key != name}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "sae.safetensors").unlink(), "sae.safetensors is missing"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "sae.safetensors").write_bytes(b"short"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: edit(folder, version=2), "newer saelight"),
        (lambda folder: edit(folder, format="other"), "not a saelight-sae config"),
        (lambda folder: edit(folder, class_path="saelight.saes.Nothing"), "does not describe an SAE"),
        (lambda folder: save_file({"W_enc": torch.zeros(2, 2)}, folder / "sae.safetensors"), "does not fit config.json"),
        (lambda folder: without(folder, "normalisation.mean"), "does not fit config.json"),
    ],
)
def test_a_bad_folder_is_refused(damage, message, folder):
    damage(folder)
    with pytest.raises(saelight.UserError, match=message):
        saelight.load(folder)
