"""What every variant must do, whatever its maths."""

import pytest
import torch

from saelight.saes import Moment
from saelight.schedules import Horizon
from tests.conftest import sparse_activations
from tests.saes.reference import REFERENCES
from tests.variants import VARIANTS

BUILT = {name: config.build(16) for name, config in VARIANTS.items()}
MOMENT = Moment(50, Horizon(100, 100, 64))


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def perturbed(variant: str, dead: bool = False):
    """The variant's SAE away from its symmetric start, in float64 so that no selection hangs on rounding."""
    sae = VARIANTS[variant].build(16, seed=3).double()
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    if dead:
        sae.tokens_since_fired[::3] = 10**9
    return sae


@pytest.mark.parametrize("dead", [False, True])
def test_loss_and_gradients_equal_the_reference(variant, dead):
    x = sparse_activations(12).double()
    sae = perturbed(variant, dead)
    config = sae.config
    weights = {name: p.detach().clone().requires_grad_() for name, p in sae.named_parameters()}
    expected = REFERENCES[variant](
        x, weights, coefficient=getattr(config, "sparsity", 0.0), k=getattr(config, "k", 0), k_aux=8, dead=sae.dead()
    )
    loss = sae.losses(x, MOMENT).total
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    gradients = torch.autograd.grad(loss, list(sae.parameters()))
    expected_gradients = torch.autograd.grad(expected, list(weights.values()))
    for name, got, want in zip(weights, gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("shape", [(16,), (1, 16), (5, 16), (2, 3, 16)])
def test_shapes(variant, shape):
    sae = VARIANTS[variant].build(16)
    x = torch.randn(shape)
    f = sae.encode(x)
    assert f.shape == (*shape[:-1], sae.d_sae)
    assert sae.decode(f).shape == sae(x).shape == shape
    assert (f >= 0).all()


def test_counts_are_of_the_latents_that_fired(variant):
    x = sparse_activations(64)
    sae = VARIANTS[variant].build(16)
    losses = sae.losses(x, MOMENT)
    assert torch.equal(losses.counts_F, (sae.encode(x) > 0).sum(0))


def test_overfits_a_tiny_batch(variant):
    x = sparse_activations(8)
    sae = VARIANTS[variant].build(16)
    sae.initialise(x)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        sae.losses(x, Moment(0, MOMENT.horizon)).total.backward()
        optimizer.step()
    assert (x - sae(x)).square().sum() < 0.05 * (x - x.mean(0)).square().sum()


@pytest.mark.parametrize("x", [torch.zeros(3, 16), torch.ones(1, 16)], ids=["zeros", "one token"])
def test_gradients_are_finite_at_the_edges(variant, x):
    sae = perturbed(variant, dead=True).float()
    gradients = torch.autograd.grad(sae.losses(x, MOMENT).total, list(sae.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("variant", [name for name, sae in BUILT.items() if sae.calibrated])
def test_calibration_fits_the_sample_best(variant):
    x = sparse_activations(256)
    sae = VARIANTS[variant].build(16)
    sae.initialise(x)
    error = [((x - sae.b_dec) - scale * (sae(x) - sae.b_dec)).square().sum() for scale in (0.99, 1.0, 1.01)]
    assert error[1] < min(error[0], error[2])


def test_folding_the_scale_moves_to_raw_activations(variant):
    raw, scale = sparse_activations(32) * 7.3, 1 / 7.3
    sae = perturbed(variant).float()
    f, x_hat = sae.encode(raw * scale), sae(raw * scale)
    sae.fold_scale(scale)
    torch.testing.assert_close(sae.encode(raw), f)
    torch.testing.assert_close(sae(raw), x_hat / scale)


@pytest.mark.parametrize("variant", [name for name, sae in BUILT.items() if sae.unit_decoder])
def test_unit_decoders_stay_on_the_sphere(variant):
    sae = perturbed(variant)
    sae.constrain_weights()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae).double())
    sae.W_dec.grad = torch.randn(sae.W_dec.shape).double()
    sae.constrain_gradients()
    torch.testing.assert_close((sae.W_dec.grad * sae.W_dec).sum(1), torch.zeros(sae.d_sae).double())


def test_bfloat16_autocast_computes_losses_in_float32(variant):
    x = sparse_activations(64)
    sae = VARIANTS[variant].build(16)
    sae.initialise(x)
    exact = sae.losses(x, MOMENT)
    with torch.autocast("cpu", torch.bfloat16):
        losses = sae.losses(x, MOMENT)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, exact.total, rtol=0.05, atol=0)
