"""SAELens's training objectives against saelight's: equal, or apart in exactly the way that each test names.

SAELens sums ‖x - x̂‖² over the D dimensions, so that its loss is D times saelight's; a coefficient of its own is λ √D.
B batch, D d_in, F d_sae.
"""

import pytest
import torch

from saelight.saes import AbsTopK, BatchTopK, Gated, JumpReLU, MatchingPursuit, Matryoshka, ReLU, TopK
from saelight.saes.dead_latents import teach_dead
from tests.conformance.peers import into_sae_lens
from tests.conformance.peers.support import (
    DEAD,
    MOMENT,
    TOLERANCE,
    D,
    F,
    K,
    activations,
    assert_apart,
    assert_same,
    assert_same_gradients,
    losses_and_gradients,
    trained,
)

SPARSITY = 0.3


def test_relu():
    sae, x_BD = trained(ReLU(d_sae=F, sparsity=SPARSITY)), activations()
    module = into_sae_lens.training("Standard", sae)
    theirs = into_sae_lens.step(module, x_BD, l1=SPARSITY * D**0.5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.total, theirs.loss)
    assert_same_gradients(gradients, into_sae_lens.gradients(theirs.loss, module))


def test_relu_p_below_one_takes_the_norm_where_saelight_takes_its_power():
    sae, x_BD = trained(ReLU(d_sae=F, sparsity=SPARSITY, p=0.5)), activations()
    module = into_sae_lens.training("Standard", sae, lp_norm=0.5)
    theirs = into_sae_lens.step(module, x_BD, l1=1.0)
    weighted_BF = sae.encode(x_BD) * sae.W_dec.norm(dim=1)
    assert_same((weighted_BF**0.5).sum(1).mean(), sae.losses(x_BD, x_BD, MOMENT).penalty)
    assert_same((weighted_BF**0.5).sum(1).square().mean(), theirs.losses["l1_loss"])


def test_gated_has_an_auxiliary_loss_that_moves_the_decoder():
    sae, x_BD = trained(Gated(d_sae=F, sparsity=SPARSITY)), activations()
    module = into_sae_lens.training("Gated", sae)
    theirs = into_sae_lens.step(module, x_BD, l1=SPARSITY * D**0.5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    theirs_gradients = into_sae_lens.gradients(theirs.loss, module)
    # The values are the same, and so is all that reaches the encoder ...
    assert_same(losses.total, theirs.loss)
    assert_same(D * losses.aux, theirs.losses["auxiliary_reconstruction_loss"])
    assert_same_gradients(gradients, theirs_gradients, but=("W_dec", "b_dec"))
    # ... but the decoder gets what the auxiliary reconstruction would like it to be, which the paper stops (eq. 8) ...
    gate_BF = torch.relu(sae.pre_activations(x_BD) + sae.b_gate).detach()
    W_dec, b_dec = (p.detach().clone().requires_grad_() for p in (sae.W_dec, sae.b_dec))
    aux = (x_BD - gate_BF @ W_dec - b_dec).square().sum(1).mean()
    # ... and a pull on the norms of its rows, which saelight holds at 1.
    pull = SPARSITY * D**0.5 * (gate_BF.mean(0) * W_dec.norm(dim=1)).sum()
    more_W_dec, more_b_dec = torch.autograd.grad(aux + pull, [W_dec, b_dec])
    assert_same(gradients["W_dec"] + more_W_dec, theirs_gradients["W_dec"])
    assert_same(gradients["b_dec"] + more_b_dec, theirs_gradients["b_dec"])
    assert_apart(gradients["W_dec"], theirs_gradients["W_dec"])
    assert_apart(gradients["b_dec"], theirs_gradients["b_dec"])


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize(("name", "kind"), [("TopK", TopK), ("AbsTopK", AbsTopK), ("BatchTopK", BatchTopK)])
def test_topk_kinds_while_none_is_dead(name, kind, rescaled):
    sae, x_BD = trained(kind(d_sae=F, k=K)), activations()
    sae.tokens_since_fired.zero_()
    teach_dead(sae)
    # Its rescaling by decoder norms changes nothing where those are 1.
    module = into_sae_lens.training(name, sae, k=K, rescale_acts_by_decoder_norm=rescaled)
    theirs = into_sae_lens.step(module, x_BD)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.counts_F, (theirs.feature_acts != 0).sum(0))
    assert_same(losses.total, theirs.loss)
    assert_same_gradients(gradients, into_sae_lens.gradients(theirs.loss, module))


@pytest.mark.parametrize("dead", [3, 14])
@pytest.mark.parametrize(("name", "kind"), [("TopK", TopK), ("AbsTopK", AbsTopK), ("BatchTopK", BatchTopK)])
def test_auxk_is_not_divided_by_the_variation_of_the_error(name, kind, dead):
    """Its own weight, D · min(dead / k_aux, 1) · mean‖e - ē‖², moves with the batch and with the SAE's quality."""
    x_BD, k_aux = activations(), D // 2
    dead_F = DEAD & (DEAD.cumsum(0) <= dead)
    sae = trained(kind(d_sae=F, k=K))
    sae.tokens_since_fired.copy_(torch.where(dead_F, sae.dead_after, 0))
    teach_dead(sae)
    module = into_sae_lens.training(name, sae, k=K, aux_loss_coefficient=1.0)
    theirs = into_sae_lens.step(module, x_BD, dead_F)
    error_BD = x_BD - theirs.sae_out.detach()
    variation = (error_BD - error_BD.mean(0)).square().sum(1).mean()
    sae.config.aux_coefficient = float(min(dead / k_aux, 1) * variation / D)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert losses.aux > 0
    assert_same(losses.total, theirs.loss)
    assert_same_gradients(gradients, into_sae_lens.gradients(theirs.loss, module))


def test_batch_topk_threshold_climbs_from_zero_at_a_fixed_rate():
    sae, x_BD = trained(BatchTopK(d_sae=F, k=K)), activations()
    sae.threshold.zero_()
    module = into_sae_lens.training("BatchTopK", sae, k=K)
    for t in range(20):
        theirs = into_sae_lens.step(module, x_BD)
        smallest = theirs.feature_acts[theirs.feature_acts > 0].min().detach()
        sae.absorb(sae.losses(x_BD, x_BD, MOMENT).measured, MOMENT)
        # The same value is averaged, but 0.99^t of the average is still the 0 it started from.
        assert_same((1 - 0.99 ** (t + 1)) * smallest, module.topk_threshold)
    assert sae.threshold > 0.99 * smallest
    assert module.topk_threshold < 0.2 * smallest


def test_matryoshka_adds_up_its_prefixes_where_saelight_averages_them():
    config = Matryoshka(d_sae=F, base=BatchTopK(k=K), group_fractions=[0.2, 0.3, 0.5])
    sae, x_BD = trained(config), activations()
    sae.tokens_since_fired.zero_()
    teach_dead(sae)
    module = into_sae_lens.training("MatryoshkaBatchTopK", sae, k=K, matryoshka_widths=[8, 20, F])
    theirs = into_sae_lens.step(module, x_BD)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(3 * losses.total, theirs.loss)
    assert_same_gradients({name: 3 * g for name, g in gradients.items()}, into_sae_lens.gradients(theirs.loss, module))


@pytest.mark.parametrize("penalty", ["step", "tanh"])
def test_jump_relu(penalty):
    # A bandwidth that most pre-activations fall into on either side of their thresholds.
    config = JumpReLU(d_sae=F, penalty=penalty, sparsity=SPARSITY, bandwidth=0.5, pre_activation_coefficient=0.01)
    sae, x_BD = trained(config), activations()
    module = into_sae_lens.training(
        "JumpReLU",
        sae,
        jumprelu_sparsity_loss_mode=penalty,
        jumprelu_bandwidth=0.5,
        jumprelu_ste_to_input=penalty == "tanh",
        pre_act_loss_coefficient=D * 0.01,
    )
    theirs = into_sae_lens.step(module, x_BD, DEAD, l0=SPARSITY * D**0.5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert theirs.losses["pre_act_loss"] > 0
    assert_same(losses.total, theirs.loss)
    assert_same_gradients(gradients, into_sae_lens.gradients(theirs.loss, module))


def test_jump_relu_aims_every_token_at_the_target_where_saelight_aims_their_mean():
    target = 5.0
    config = JumpReLU(d_sae=F, penalty="target", sparsity=SPARSITY, target_l0=target, bandwidth=0.5, aux_coefficient=0.0)
    sae, x_BD = trained(config), activations()
    module = into_sae_lens.training(
        "JumpReLU", sae, jumprelu_sparsity_loss_mode="quadratic", jumprelu_bandwidth=0.5, target_l0=target
    )
    # (2/L0*) (L0 - L0*)² is 2 L0* times the square of the relative distance.
    coefficient = SPARSITY * D / (2 * target)
    theirs = into_sae_lens.step(module, x_BD, l0=coefficient)
    l0_B = (theirs.feature_acts > 0).sum(1).double()
    losses, _ = losses_and_gradients(sae, x_BD)
    spread = D * SPARSITY * l0_B.var(correction=0) / target**2
    assert_same(losses.total + spread, theirs.loss)
    assert spread > TOLERANCE
    # A single token has no spread.
    losses, gradients = losses_and_gradients(sae, x_BD[:1])
    theirs = into_sae_lens.step(module, x_BD[:1], l0=coefficient)
    assert_same(losses.total, theirs.loss)
    theirs_gradients = into_sae_lens.gradients(theirs.loss, module)
    assert_same_gradients(gradients, theirs_gradients)


def test_matching_pursuit_where_no_rule_ends_it_early():
    sae, x_BD = trained(MatchingPursuit(d_sae=F, k=K)), activations()
    x_BD = x_BD[(sae.encode(x_BD) > 0).sum(1) == K]
    module = into_sae_lens.training("MatchingPursuit", sae, max_iterations=K, residual_threshold=0.0, decoder_init_norm=1.0)
    theirs = into_sae_lens.step(module, x_BD)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.total, theirs.loss)
    assert_same_gradients(gradients, into_sae_lens.gradients(theirs.loss, module))
