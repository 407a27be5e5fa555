"""What every variant must do, whatever its maths.

B batch, D d_in, O d_out, F d_sae.
"""

import pytest
import torch

from saelight.saes import AbsTopK, GatedHardConcrete, HardConcrete, MatchingPursuit, Moment
from tests.conformance.objectives import D_IN, D_OUT, MOMENT, built, kill
from tests.support.activations import sparse_activations
from tests.support.variants import VARIANTS

BUILT = {name: config.build(D_IN) for name, config in VARIANTS.items()}


def sided(*sides: str) -> list[tuple[str, str]]:
    """Every variant with every side, but for the one that has no transcoder."""
    return [(n, s) for n, c in VARIANTS.items() for s in sides if s == "autoencoder" or not isinstance(c, MatchingPursuit)]


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize(("variant", "side"), sided("autoencoder", "skip"))
def test_shapes(variant, side, shape):
    sae = built(VARIANTS[variant], side).float()
    x = torch.randn(*shape, D_IN)
    f = sae.encode(x)
    assert f.shape == (*shape, sae.d_sae)
    assert sae.decode(f).shape == sae(x).shape == (*shape, D_IN if side == "autoencoder" else D_OUT)
    assert isinstance(VARIANTS[variant], AbsTopK) or (f >= 0).all()


@pytest.mark.parametrize(("variant", "side"), sided("autoencoder", "transcoder"))
def test_overfits_a_tiny_batch(variant, side):
    x, y = sparse_activations(8), sparse_activations(8, D_OUT, seed=1)
    sae = VARIANTS[variant].build(D_IN, d_out=None if side == "autoencoder" else D_OUT)
    y = x if side == "autoencoder" else y
    sae.initialise(x, None if side == "autoencoder" else y)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        losses = sae.losses(x, y, Moment(0, MOMENT.horizon))
        losses.total.backward()
        sae.constrain_gradients()
        optimizer.step()
        sae.constrain_weights()
        if losses.measured is not None:  # BatchTopK's threshold, which decides at inference
            sae.absorb(losses.measured, Moment(0, MOMENT.horizon))
    noisy = isinstance(VARIANTS[variant], HardConcrete | GatedHardConcrete)
    # Gates fitted to one draw of noise are not fitted to none.
    left = sae.losses(x, y, Moment(0, MOMENT.horizon)).reconstruction * y.numel() if noisy else (y - sae(x)).square().sum()
    assert left < 0.05 * (y - y.mean(0)).square().sum()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(("variant", "side"), sided("autoencoder", "skip"))
def test_gradients_are_finite_at_the_edges(variant, side, value, rows):
    sae = built(VARIANTS[variant], side).float()
    kill(sae, 3)
    x, y = torch.full((rows, D_IN), value), torch.full((rows, sae.d_out), value)
    total = sae.losses(x, y, MOMENT).total
    assert total.isfinite()
    gradients = torch.autograd.grad(total, list(sae.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("variant", [name for name, sae in BUILT.items() if sae.calibrated])
def test_calibration_fits_the_sample_best(variant):
    x = sparse_activations(256)
    sae = VARIANTS[variant].build(D_IN)
    sae.initialise(x)
    error = [((x - sae.b_dec) - scale * (sae(x) - sae.b_dec)).square().sum() for scale in (0.99, 1.0, 1.01)]
    assert error[1] < min(error[0], error[2])


@pytest.mark.parametrize("variant", [name for name, sae in BUILT.items() if sae.unit_decoder])
def test_unit_decoders_stay_on_the_sphere(variant):
    sae = built(VARIANTS[variant])
    sae.constrain_weights()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae).double())
    sae.W_dec.grad = torch.randn(sae.W_dec.shape).double()
    sae.constrain_gradients()
    torch.testing.assert_close((sae.W_dec.grad * sae.W_dec).sum(1), torch.zeros(sae.d_sae).double())


@pytest.mark.parametrize("variant", [name for name, sae in BUILT.items() if not sae.unit_decoder])
def test_free_decoders_are_left_alone(variant):
    sae = built(VARIANTS[variant])
    sae.W_dec.grad = torch.randn(sae.W_dec.shape).double()
    before = sae.W_dec.detach().clone(), sae.W_dec.grad.clone()
    sae.constrain_gradients()
    sae.constrain_weights()
    assert torch.equal(sae.W_dec, before[0])
    assert torch.equal(sae.W_dec.grad, before[1])


def test_bfloat16_autocast_computes_losses_in_float32(variant):
    x = sparse_activations(64)
    sae = VARIANTS[variant].build(D_IN)
    sae.initialise(x)
    exact = sae.losses(x, x, MOMENT)
    with torch.autocast("cpu", torch.bfloat16):
        losses = sae.losses(x, x, MOMENT)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, exact.total, rtol=0.05, atol=0)
