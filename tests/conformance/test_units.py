"""Changes of units: an SAE folded to raw rows, or carried over to data of another mean and scale, stays the same function.

D d_in, O d_out, N rows.
"""

import copy

import pytest
import torch

from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes import JumpReLU, MatchingPursuit
from saelight.saes.trained import Trained, start_from
from tests.conformance.objectives import D_IN, D_OUT, built
from tests.support.activations import sparse_activations
from tests.support.variants import VARIANTS


def normalisation(width, scale, seed):
    """Units whose mean is many times as large as what varies."""
    mean_D = 20 * torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Normalisation("standard", scale, mean_D)


RUNS = [
    (variant, side)
    for variant, config in VARIANTS.items()
    for side in ("autoencoder", "skip")
    if side == "autoencoder" or not isinstance(config, MatchingPursuit)
]
X = normalisation(D_IN, 0.3, 0), normalisation(D_IN, 1.9, 1)
Y = normalisation(D_OUT, 1.7, 2), normalisation(D_OUT, 0.2, 3)
NORMED_ND = sparse_activations(64).double()
RAW_ND = NORMED_ND / X[0].scale + X[0].mean_D


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def raw_reconstruction(sae, x, y):
    """Raw rows through an SAE that was trained in units x and y."""
    return sae(x.scale * (RAW_ND - x.mean_D)) / y.scale + y.mean_D


def trained(variant, side):
    """An SAE as training leaves it, in float64."""
    sae = built(VARIANTS[variant], side)
    sae.constrain_weights()
    for name, buffer in sae.named_buffers():
        if name == "threshold":
            buffer.fill_(0.4)
    return sae


@pytest.mark.parametrize(("variant", "side"), RUNS)
def test_a_folded_sae_takes_and_gives_raw_rows(variant, side):
    sae = trained(variant, side)
    f, target = sae.encode(NORMED_ND), X[0] if side == "autoencoder" else Y[0]
    assert f.any()
    expected = raw_reconstruction(sae, X[0], target)
    sae.fold(X[0], None if side == "autoencoder" else target)
    close(sae.encode(RAW_ND), f)
    close(sae(RAW_ND), expected)


@pytest.mark.parametrize(("variant", "side"), RUNS)
def test_starting_on_data_of_another_mean_and_scale_changes_no_reconstruction(variant, side):
    sae, new = trained(variant, side), built(VARIANTS[variant], side, seed=1)
    before, after = ((x, x if side == "autoencoder" else y) for x, y in zip(X, Y, strict=True))
    expected, f = raw_reconstruction(sae, *before), sae.encode(NORMED_ND)
    targets = (None, None) if side == "autoencoder" else (before[1], after[1])
    start_from(new, Trained(sae, before[0], targets[0]), after[0], targets[1])
    close(raw_reconstruction(new, *after), expected)
    # Rows of norm 1 leave the new scale to the latents; free rows, and pursuit's own scale, take it up.
    stretches = new.unit_decoder and not isinstance(new.config, MatchingPursuit)
    close(
        new.encode(after[0].scale * (RAW_ND - after[0].mean_D)), f * (after[1].scale / before[1].scale if stretches else 1.0)
    )
    if new.unit_decoder:
        close(new.W_dec.norm(dim=1), torch.ones(new.d_sae).double())


@pytest.mark.parametrize("variant", VARIANTS)
def test_starting_in_the_same_units_keeps_the_weights(variant):
    sae, new = VARIANTS[variant].build(D_IN, seed=1), VARIANTS[variant].build(D_IN, seed=2)
    sae.initialise(sparse_activations(64))
    weights = copy.deepcopy(sae.state_dict())
    start_from(new, Trained(sae, X[0], None), X[0])
    for name in weights.keys() - set(sae.training_state):
        torch.testing.assert_close(new.state_dict()[name], weights[name], rtol=1e-6, atol=1e-7)
    assert new.initialised
    assert not new.tokens_since_fired.any()


def test_free_rows_become_rows_of_norm_one():
    smooth, steep = (JumpReLU(d_sae=32, penalty=penalty) for penalty in ("tanh", "step"))
    free, unit = smooth.build(D_IN, seed=1).double(), steep.build(D_IN, seed=2).double()
    with torch.no_grad():
        free.W_dec.mul_(torch.linspace(0.5, 3, 32)[:, None])
        free.b_enc.uniform_(-0.1, 0.1)
    expected = free(NORMED_ND)
    start_from(unit, Trained(free, X[0], None), X[0])
    close(unit(NORMED_ND), expected)


def test_gates_that_norms_would_move_are_left_alone():
    with pytest.raises(UserError, match="keep their norms"):
        VARIANTS["hard_concrete"].build(D_IN).fold_norms()
