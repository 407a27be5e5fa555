"""Data of any mean, spread and shape: what is trained does not depend on where the origin lies.

N rows, D d_in.
"""

import contextlib

import pytest
import torch

import saelight
from saelight.data.moments import Sums, fit_normalisation
from saelight.ops.normalisation import Normalisation
from saelight.saes import SAE
from tests.support.activations import sparse_activations
from tests.support.banks import bank, fit

D_IN = 16
SAES = {
    "relu": saelight.ReLU(d_sae=48, lr=3e-3),
    "gated": saelight.Gated(d_sae=48, lr=3e-3),
    "jump_relu": saelight.JumpReLU(d_sae=48, lr=3e-3),
    "topk": saelight.TopK(d_sae=48, k=4, lr=3e-3),
    "hard_concrete": saelight.HardConcrete(d_sae=48, lr=3e-3),
}


def normalised(x_ND, kind="standard"):
    x = x_ND.double()
    return fit_normalisation(kind, Sums(len(x), x.square().sum().item(), x.sum(0)), "rows")(x_ND)


@torch.no_grad()
def numbers(made, x_ND):
    """L0 and FVU of each SAE of a bank."""
    found = {}
    for name, sae in zip(made.names, made.saes, strict=True):
        f, x_hat = sae.encode(x_ND), sae(x_ND)
        fvu = (x_ND - x_hat).square().sum() / (x_ND - x_ND.mean(0)).square().sum()
        found[name] = float((f > 0).sum(1).float().mean()), float(fvu)
    return found


def trained(x_ND, saes):
    """The numbers after a short run, on the rows of it."""
    made = bank(saes)
    fit(made, x_ND)
    return numbers(made, x_ND)


@pytest.fixture(scope="module")
def at_the_origin():
    return trained(normalised(rows(0)), SAES)


def rows(gamma):
    """The same rows about a mean gamma times their spread."""
    x_ND = sparse_activations(1280)
    x_ND = x_ND - x_ND.mean(0)
    direction_D = torch.nn.functional.normalize(torch.randn(D_IN, generator=torch.Generator().manual_seed(1)), dim=0)
    return x_ND + gamma * x_ND.square().sum(1).mean().sqrt() * direction_D


@pytest.mark.parametrize("gamma", [5, 15, 35])
def test_a_large_mean_changes_no_result(gamma, at_the_origin):
    for name, found in trained(normalised(rows(gamma)), SAES).items():
        assert found == pytest.approx(at_the_origin[name], rel=1e-3), name


def test_a_scale_alone_does_not_do_that(at_the_origin):
    one = {"relu": SAES["relu"]}
    assert trained(normalised(rows(35), "rms"), one)["relu"][1] > 1.5 * at_the_origin["relu"][1]


def shapes():
    g = torch.Generator().manual_seed(0)
    x = sparse_activations(512)
    yield "one wide dimension", torch.cat([200 * x[:, :1], x[:, 1:]], 1)
    yield "constant dimensions", torch.cat([torch.full((512, 3), 7.0), x[:, 3:]], 1)
    yield "heavy tails", x / torch.rand(512, 1, generator=g)
    yield "negative only", -x.abs()
    yield "mostly zeros", x * (torch.rand(512, D_IN, generator=g) < 0.1)


@pytest.mark.parametrize(("shape", "x_ND"), list(shapes()))
def test_rows_of_any_shape_train_to_finite_weights(shape, x_ND):
    made = bank(SAES)
    said = {"constant dimensions": "3 of 16 dimensions .* are the same", "heavy tails": "longer than 10 times the median"}
    with pytest.warns(UserWarning, match=said[shape]) if shape in said else contextlib.nullcontext():
        fit(made, normalised(x_ND), max_steps=6)
    for sae in made.saes:
        assert isinstance(sae, SAE)
        assert all(p.isfinite().all() for p in sae.parameters())
    assert not made.inactive


def test_a_checkpoint_holds_the_units(tmp_path):
    made = bank({"a": SAES["relu"]})
    made.normalisation = Normalisation("standard", 0.5, torch.ones(D_IN).double())
    trainer = fit(made, sparse_activations(64), max_steps=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again = saelight.SAEBank.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.normalisation.scale == 0.5
    assert torch.equal(again.normalisation.mean_D, made.normalisation.mean_D)
