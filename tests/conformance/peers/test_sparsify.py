"""sparsify's sparse coders against saelight's TopK SAEs and transcoders: latents, reconstructions, losses, gradients.

sparsify divides the squared error by the batch's own variation Σ‖y - ȳ‖² where saelight divides by B·D.
B batch, D d_in, F d_sae.
"""

import pytest
import torch

from saelight.saes import Matryoshka, TopK
from saelight.saes.auxk import auxk
from saelight.saes.dead_latents import teach_dead
from tests.conformance.peers.into_sparsify import coder, gradients, latents
from tests.conformance.peers.support import (
    DEAD,
    MOMENT,
    D,
    F,
    K,
    activations,
    assert_apart,
    assert_same,
    assert_same_gradients,
    parameter_gradients,
    trained,
)


@pytest.mark.parametrize(
    "config", [TopK(d_sae=F, k=K), Matryoshka(d_sae=F, base=TopK(k=K))], ids=["topk", "matryoshka-topk"]
)
def test_autoencoders(config):
    sae, x_BD = trained(config).float(), activations(rows=64).float()
    theirs = coder(sae)
    assert_same(sae.encode(x_BD), latents(theirs, x_BD))
    assert_same(sae(x_BD), theirs(x_BD).sae_out)


@pytest.mark.parametrize("skip", [False, True])
def test_transcoders(skip):
    sae, x_BD = trained(TopK(d_sae=F, k=K, skip=skip), d_out=D).float(), activations(rows=64).float()
    theirs = coder(sae)
    assert_same(sae.encode(x_BD), latents(theirs, x_BD))
    assert_same(sae(x_BD), theirs(x_BD).sae_out)


@pytest.mark.parametrize("case", ["autoencoder", "transcoder", "skip transcoder"])
def test_objective(case):
    x_BD, y_BD = activations(), activations(seed=1)
    sae = trained(TopK(d_sae=F, k=K, skip="skip" in case), d_out=None if case == "autoencoder" else D)
    sae.tokens_since_fired.zero_()
    teach_dead(sae)
    y_BD = y_BD if sae.is_transcoder else x_BD
    theirs = coder(sae)
    fvu = theirs(x_BD, y_BD).fvu
    losses = sae.losses(x_BD, y_BD, MOMENT)
    units = y_BD.numel() / (y_BD - y_BD.mean(0)).square().sum()
    assert_same(losses.total * units, fvu)
    assert_same_gradients(parameter_gradients(losses.total * units, sae), gradients(fvu, theirs))


@pytest.mark.parametrize("dead", [3, 14])
def test_auxk_has_no_bias_and_three_things_of_its_own(dead):
    sae, x_BD, k_aux = trained(TopK(d_sae=F, k=K)), activations(), D // 2
    dead_F = DEAD & (DEAD.cumsum(0) <= dead)
    theirs = coder(sae)
    out = theirs(x_BD, dead_mask=dead_F)
    error_BD = (x_BD - out.sae_out).detach()
    pre_BF = (sae.pre_activations(x_BD) + sae.b_enc).detach()
    # The dead latents are cut at 0, the division is by the variation of x, not of the error, and few dead weigh less.
    cut = auxk(torch.relu(pre_BF)[:, dead_F], error_BD, sae.W_dec[dead_F], k_aux)
    divided = cut * (error_BD - error_BD.mean(0)).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
    assert_same(divided * min(dead / k_aux, 1), out.auxk_loss)
    assert_apart(divided, auxk(pre_BF[:, dead_F], error_BD, sae.W_dec[dead_F], k_aux))


def test_auxk_and_multi_topk_do_not_reach_the_encoder():
    """Its encoder's backward drops the gradient of all that was not kept: dead latents' encoders never learn from AuxK."""
    sae, x_BD = trained(TopK(d_sae=F, k=K)), activations()
    theirs = coder(sae)
    theirs.cfg.multi_topk = True
    out = theirs(x_BD, dead_mask=DEAD)
    for loss in (out.auxk_loss, out.multi_topk_fvu):
        found = gradients(loss, theirs)
        assert found["W_dec"][DEAD].abs().max() > 0
        assert found["W_enc"].abs().max() == 0
        assert found["b_enc"].abs().max() == 0
    ours = parameter_gradients(sae.losses(x_BD, x_BD, MOMENT).aux, sae)
    assert ours["W_enc"][:, DEAD].abs().max() > 0
    assert ours["b_enc"][DEAD].abs().max() > 0
