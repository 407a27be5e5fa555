"""Loss, gradients and latents of every variant and option against the references.

B batch, D d_in, O d_out, F d_sae.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saelight.errors import UserError
from saelight.saes import (
    SAE,
    GatedHardConcrete,
    HardConcrete,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    Penalised,
    SAEConfig,
    TopK,
)
from tests.conformance.objectives import (
    MOMENT,
    OPTIONS,
    RUNS,
    SIDES,
    assert_agrees,
    batch,
    built,
    expected,
    expected_latents,
    kill,
)


@pytest.fixture(scope="module", autouse=True, params=["densely", "sparsely"])
def execution(request):
    """Everything here is asked twice: with all entries of the latents computed, and with only those that can be active."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SAE, "sparse_below", float("inf") if request.param == "sparsely" else 0.0)
        yield request.param


def heeds_dead(config: SAEConfig) -> bool:
    inner = config.base if isinstance(config, Matryoshka) else config
    return isinstance(inner, TopK | JumpReLU)


DEATHS = {"alive": 0, "some-dead": 3, "all-dead": 1}
TRAINED = [(*run, dead) for run in RUNS for dead in DEATHS if dead == "alive" or heeds_dead(OPTIONS[run[0]])]


@pytest.mark.parametrize(("option", "side", "dead"), TRAINED)
def test_loss_and_gradients_equal_the_reference(option, side, dead):
    config = OPTIONS[option]
    sae = built(config, side)
    kill(sae, DEATHS[dead])
    x, y = batch(side)
    assert_agrees(sae, x, y, expected(config, sae, x, y))


@pytest.mark.parametrize(("option", "side"), RUNS)
def test_latents_equal_the_reference(option, side):
    config = OPTIONS[option]
    sae = built(config, side)
    if hasattr(sae, "threshold"):
        sae.threshold.fill_(0.4)
    x, y = batch(side)
    want = expected_latents(config, sae, x, y)
    assert want.any()
    torch.testing.assert_close(sae.encode(x), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("option", OPTIONS)
def test_fired_latents_are_counted(option):
    """As the objective selects them, but for noisy gates: what the noise opened would not fire when it is gone."""
    config = OPTIONS[option]
    sae = built(config)
    x, y = batch("autoencoder")
    noisy = isinstance(config, HardConcrete | GatedHardConcrete)
    f = expected_latents(config, sae, x, y) if noisy else expected(config, sae, x, y).latents
    assert torch.equal(sae.losses(x, x, MOMENT).counts_F, (f != 0).sum(0))


@pytest.mark.parametrize("option", [name for name, c in OPTIONS.items() if isinstance(c, Penalised) and c.sparsity])
def test_sparsity_is_what_was_asked_for(option):
    assert float(built(OPTIONS[option]).sparsity(MOMENT)) == pytest.approx(OPTIONS[option].sparsity)


def test_matching_pursuit_has_no_transcoder():
    with pytest.raises(UserError):
        MatchingPursuit(d_sae=24, k=3).build(16, d_out=10)


@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_size_agrees_and_stays_finite(option, data):
    """Widths and batches from 1, k up to d_sae, any share of the latents dead, activations that are all 0."""
    d_in, d_out, d_sae = (data.draw(st.integers(1, n), label) for n, label in ((7, "d_in"), (7, "d_out"), (11, "d_sae")))
    rows = data.draw(st.integers(1, 5), "rows")
    dead = data.draw(st.sampled_from([0, 1, 2, 3]), "dead")
    zero = data.draw(st.booleans(), "zero")
    config = sized(OPTIONS[option], d_sae, data)
    side = "autoencoder" if isinstance(config, MatchingPursuit) else data.draw(st.sampled_from(SIDES), "side")
    sae = built(config, side, d_in, d_out)
    kill(sae, dead)
    x, y = batch(side, rows, d_in, d_out)
    if zero:
        x, y = torch.zeros_like(x), None if y is None else torch.zeros_like(y)
        # AuxK divides by the errors' spread, which is that of rounding when all rows are the same.
        assume(rows == 1 or not (dead and heeds_dead(config)))
    want = expected(config, sae, x, y)
    assert want.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in want.gradients.values())
    assert_agrees(sae, x, y, want)
    f = sae.encode(x)
    assert f.shape == (rows, sae.d_sae)
    assert sae.decode(f).shape == (rows, sae.d_out)
    assert sae(x).shape == (rows, sae.d_out)
    assert sae(x).isfinite().all()


def sized(config: SAEConfig, d_sae: int, data: st.DataObject) -> SAEConfig:
    """The same variant at another width, with a k and a k_aux that may be all of it."""
    inner = config.base if isinstance(config, Matryoshka) else config
    if hasattr(inner, "k"):
        inner = replace(inner, k=data.draw(st.integers(1, d_sae), "k"))
    if isinstance(inner, TopK | JumpReLU):
        inner = replace(inner, k_aux=data.draw(st.integers(1, d_sae), "k_aux"))
    if isinstance(inner, Penalised) and inner.target_l0 is not None:
        inner = replace(inner, target_l0=min(inner.target_l0, d_sae / 2))
    if not isinstance(config, Matryoshka):
        return replace(inner, d_sae=d_sae, expansion=None)
    random_prefixes = config.random_prefixes and min(config.random_prefixes, d_sae)
    return replace(config, base=inner, d_sae=d_sae, random_prefixes=random_prefixes)


@pytest.mark.parametrize("seed", range(40))
def test_pursuit_stops_where_the_reference_does(seed):
    """In few dimensions every reason to stop comes up: nothing left, nothing positive, a direction taken before."""
    g = torch.Generator().manual_seed(seed)
    d_in, d_sae, k = (int(torch.randint(1, n, (), generator=g)) for n in (5, 9, 6))
    config = MatchingPursuit(d_sae=d_sae, k=min(k, d_sae))
    sae = built(config, d_in=d_in, seed=seed)
    x = torch.randn(6, d_in, generator=g, dtype=torch.float64)
    torch.testing.assert_close(sae.encode(x), expected_latents(config, sae, x, None), rtol=1e-9, atol=1e-12)
    assert_agrees(sae, x, None, expected(config, sae, x, None))
