"""dictionary_learning's training objectives against saelight's: equal, or apart in exactly the way that each test names.

It sums ‖x - x̂‖² over the D dimensions, so that its loss is D times saelight's; a coefficient of its own is λ √D.
B batch, D d_in, F d_sae.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from saelight.saes import SAE, BatchTopK, Gated, JumpReLU, Matryoshka, Moment, ReLU, TopK
from saelight.saes.auxk import auxk
from saelight.saes.dead_latents import teach_dead
from saelight.schedules import Horizon
from tests.conformance.peers import into_dictionary_learning
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
    losses_and_gradients,
    trained,
)

SPARSITY = 0.3


def test_relu():
    sae, x_BD = trained(ReLU(d_sae=F, sparsity=SPARSITY)), activations()
    trainer = into_dictionary_learning.trainer("StandardTrainerAprilUpdate", sae, l1_penalty=SPARSITY * D**0.5)
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.total, theirs)
    assert_same_gradients(gradients, into_dictionary_learning.gradients(theirs, trainer.ae))


def test_relu_with_rows_held_at_norm_one():
    sae, x_BD = unit_relu(), activations()
    trainer = into_dictionary_learning.trainer("StandardTrainer", sae, l1_penalty=SPARSITY * D**0.5)
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    theirs_gradients = into_dictionary_learning.gradients(theirs, trainer.ae)
    assert_same(losses.total, theirs)
    assert_same_gradients(gradients, theirs_gradients, but=("W_dec",))
    # saelight's decoder is free and pays for its norms, which here are a constraint.
    along_F1 = (gradients["W_dec"] - theirs_gradients["W_dec"]) * sae.W_dec
    assert_same(gradients["W_dec"], theirs_gradients["W_dec"] + along_F1.sum(1, keepdim=True) * sae.W_dec)


def unit_relu(**settings: Any) -> SAE:
    sae = trained(ReLU(d_sae=F, sparsity=SPARSITY, sparsity_warmup=0, **settings))
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae


def test_p_below_one_is_a_norm_by_default_where_saelight_takes_its_power():
    sae, x_BD = unit_relu(p=0.5), activations()
    sums_B = sae.encode(x_BD).sqrt().sum(1)
    assert_same(sums_B.mean(), sae.losses(x_BD, x_BD, MOMENT).penalty)
    trainer = into_dictionary_learning.trainer("PAnnealTrainer", sae, anneal_start=6, p_start=0.5)
    trainer.loss(x_BD, step=5)
    assert_same(sums_B.square().mean(), trainer.lp_loss)


def test_p_annealing_with_the_power():
    """p moves at steps 13 and 23, λ with it: every step's loss and gradient is the same."""
    sae = unit_relu(p=1.0, p_end=0.5, p_updates=2, anneal_start=13)
    trainer = into_dictionary_learning.trainer(
        "PAnnealTrainer",
        sae,
        sparsity_function="Lp^p",
        initial_sparsity_penalty=SPARSITY * D**0.5,
        n_sparsity_updates=3,
        anneal_start=2,
        anneal_end=22,
        p_end=0.5,
    )
    horizon, seen = Horizon(steps=33, steps_per_epoch=33, tokens_per_step=32), []
    for step in range(25):
        x_BD, moment = activations(rows=32, seed=step), Moment(step, horizon)
        theirs = trainer.loss(x_BD, step=step)
        losses, gradients = losses_and_gradients(sae, x_BD, moment)
        assert_same(losses.total, theirs)
        assert_same_gradients(gradients, into_dictionary_learning.gradients(theirs, trainer.ae), but=("W_dec",))
        sae.absorb(losses.measured, moment)
        seen.append(trainer.p)
    assert sorted(set(seen)) == [0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", ["StandardTrainer", "PAnnealTrainer"])
def test_resampling_takes_the_input_as_long_as_it_is(name):
    sae, x_BD = unit_relu(), activations(rows=1)
    with torch.no_grad():
        sae.b_dec.zero_()  # it does not centre the input either
    more = {"anneal_start": 6} if name == "PAnnealTrainer" else {}
    trainer = into_dictionary_learning.trainer(name, sae, resample_steps=5, **more | {"warmup_steps": 1})
    trainer.update(1, x_BD)  # the optimizer's state is there from now on
    into_dictionary_learning.filled(trainer.ae, sae)
    dead = torch.arange(F) == 7
    trainer.resample_neurons(dead, x_BD)
    before = sae.W_enc[:, 7].clone()
    sae.restart(torch.tensor([7]), x_BD, x_BD)
    encoder, decoder, bias = trainer.ae.encoder.weight[7], trainer.ae.decoder.weight[:, 7], trainer.ae.encoder.bias[7]
    if name == "PAnnealTrainer":
        # It writes into a copy: nothing is resampled.
        assert_same(before, encoder)
        return
    assert_same(sae.W_dec[7], decoder)
    assert_same(sae.b_enc[7], bias)
    # A fifth of the alive columns' norm in saelight (and in the paper); times ‖x‖ here.
    assert_same(sae.W_enc[:, 7] * x_BD.norm(), encoder)


def test_gated():
    sae, x_BD = trained(Gated(d_sae=F, sparsity=SPARSITY)), activations()
    trainer = into_dictionary_learning.trainer("GatedSAETrainer", sae, l1_penalty=SPARSITY * D**0.5)
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.total, theirs)
    assert_same_gradients(gradients, into_dictionary_learning.gradients(theirs, trainer.ae))


@pytest.mark.parametrize(("name", "kind"), [("TopKTrainer", TopK), ("BatchTopKTrainer", BatchTopK)])
def test_topk_kinds_while_none_is_dead(name, kind):
    sae, x_BD = trained(kind(d_sae=F, k=K)), activations()
    sae.tokens_since_fired.zero_()
    teach_dead(sae)
    trainer = into_dictionary_learning.trainer(name, sae, k=K)
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.counts_F, (trainer.loss(x_BD, step=5, logging=True).f > 0).sum(0))
    assert_same(losses.total, theirs)
    assert_same_gradients(gradients, into_dictionary_learning.gradients(theirs, trainer.ae))


def quieten_the_dead(sae: SAE, x_BD: Tensor) -> None:
    """Lower the dead latents' biases until none of them fires on this batch, though some are positive."""
    while ((sae.losses(x_BD, x_BD, MOMENT).counts_F > 0) & DEAD).any():
        with torch.no_grad():
            sae.b_enc -= 0.05 * DEAD
    assert (sae.pre_activations(x_BD) + sae.b_enc > 0)[:, DEAD].any()


@pytest.mark.parametrize(("name", "kind"), [("TopKTrainer", TopK), ("BatchTopKTrainer", BatchTopK)])
def test_auxk_cuts_negative_pre_activations_and_weighs_d_times_less(name, kind):
    sae, x_BD, alpha = trained(kind(d_sae=F, k=K)), activations(), 1 / 32
    quieten_the_dead(sae, x_BD)
    trainer = into_dictionary_learning.trainer(name, sae, k=K, auxk_alpha=alpha)
    trainer.num_tokens_since_fired[DEAD] = trainer.dead_feature_threshold
    theirs = trainer.loss(x_BD, step=5)
    losses, _ = losses_and_gradients(sae, x_BD)
    # The ratio is the same, of dead latents cut at 0: those that are negative on a token learn nothing from it.
    pre_BF = sae.pre_activations(x_BD) + sae.b_enc
    error_BD = x_BD - trainer.loss(x_BD, step=5, logging=True).x_hat
    cut = auxk(torch.relu(pre_BF)[:, DEAD], error_BD, sae.W_dec[DEAD], D // 2)
    uncut = auxk(pre_BF[:, DEAD], error_BD, sae.W_dec[DEAD], D // 2)
    assert_same(uncut, losses.aux)
    assert_apart(uncut, cut)
    # It is added to a reconstruction term that is not divided by D.
    assert_same(D * losses.reconstruction + alpha * cut, theirs)
    assert_same(losses.total, D * losses.reconstruction + D * alpha * uncut)


def test_batch_topk_threshold_waits_and_then_moves_by_a_thousandth():
    sae, x_BD = trained(BatchTopK(d_sae=F, k=K)), activations()
    trainer = into_dictionary_learning.trainer("BatchTopKTrainer", sae, k=K, threshold_start_step=2)
    trainer.ae.threshold.fill_(-1.0)
    f_BF = trainer.loss(x_BD, step=2, logging=True).f
    assert trainer.ae.threshold == -1  # every positive latent is kept until then
    trainer.loss(x_BD, step=3)
    assert_same(f_BF[f_BF > 0].min().detach(), trainer.ae.threshold)
    trainer.loss(2 * x_BD, step=4)
    f2_BF = trainer.loss(2 * x_BD, step=2, logging=True).f
    assert_same(0.999 * f_BF[f_BF > 0].min().detach() + 0.001 * f2_BF[f2_BF > 0].min().detach(), trainer.ae.threshold)


def test_matryoshka_divides_by_the_number_of_prefixes_twice():
    sae = trained(Matryoshka(d_sae=F, base=BatchTopK(k=K), group_fractions=[0.2, 0.3, 0.5]))
    sae.tokens_since_fired.zero_()
    teach_dead(sae)
    x_BD = activations()
    trainer = into_dictionary_learning.trainer("MatryoshkaBatchTopKTrainer", sae, k=K, group_fractions=[0.2, 0.3, 0.5])
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    # Weights of 1/n each, and then their mean: beside it, AuxK weighs n times more.
    assert_same(losses.total / 3, theirs)
    gradients = {name: gradient / 3 for name, gradient in gradients.items()}
    assert_same_gradients(gradients, into_dictionary_learning.gradients(theirs, trainer.ae))


def jump_relu(bandwidth: float):
    sae = trained(
        JumpReLU(d_sae=F, penalty="target", sparsity=SPARSITY, target_l0=5.0, bandwidth=bandwidth, aux_coefficient=0.0)
    )
    trainer = into_dictionary_learning.trainer(
        "JumpReluTrainer", sae, bandwidth=bandwidth, sparsity_penalty=SPARSITY * D, target_l0=5.0
    )
    into_dictionary_learning.without_b_dec_on_the_input(trainer.ae.b_enc, sae)
    return sae, trainer


def test_jump_relu_reconstruction_and_the_value_of_its_penalty():
    x_BD = activations()
    sae, trainer = jump_relu(bandwidth=0.1)
    theirs = trainer.loss(x_BD, step=5)
    losses, gradients = losses_and_gradients(sae, x_BD)
    assert_same(losses.total, theirs)
    theirs_gradients = into_dictionary_learning.gradients(theirs, trainer.ae)
    # Its trainer never subtracts b_dec from x, whatever the dictionary does ...
    trainer.ae.apply_b_dec_to_input = True
    assert_same(losses.total, trainer.loss(x_BD, step=5))
    # ... so that the encoder sees another x, and b_dec moves by the reconstruction alone.
    assert_same_gradients(gradients, theirs_gradients, but=("log_threshold", "W_enc", "b_dec"))
    assert_same(gradients["W_enc"], theirs_gradients["W_enc"] - sae.b_dec[:, None] * theirs_gradients["b_enc"])
    assert_same(gradients["b_dec"], theirs_gradients["b_dec"] - sae.W_enc @ theirs_gradients["b_enc"])


@pytest.mark.parametrize("bandwidth", [0.1, 1.5])
def test_jump_relu_penalty_sees_latents_after_the_jump(bandwidth):
    """Below its threshold a latent is 0 to the penalty, not its pre-activation: half the kernel is lost, or, where the
    bandwidth exceeds 2θ, every silent latent is inside it."""
    x_BD = activations()
    sae, trainer = jump_relu(bandwidth)
    log = trainer.loss(x_BD, step=5, logging=True)
    theirs = into_dictionary_learning.gradients(trainer.loss(x_BD, step=5), trainer.ae)["log_threshold"]
    _, gradients = losses_and_gradients(sae, x_BD)
    pre_BF, theta_F = sae.pre_activations(x_BD) + sae.b_enc, sae.threshold
    l0 = (log.f > 0).sum(1).double().mean()
    slope = SPARSITY * D * 2 * (l0 / 5 - 1) / 5  # of the penalty, by L0

    def from_penalty(seen_BF: Tensor) -> Tensor:
        return -theta_F * slope * (((seen_BF - theta_F) / bandwidth).abs() < 0.5).double().mean(0) / bandwidth

    assert_same(gradients["log_threshold"] - from_penalty(pre_BF) + from_penalty(log.f), theirs)
    assert_apart(from_penalty(pre_BF), from_penalty(log.f))
    below_BF = (pre_BF <= theta_F) & ((pre_BF - theta_F) / bandwidth > -0.5)
    silent_inside_F = theta_F < bandwidth / 2
    assert below_BF.any()
    assert silent_inside_F.any() == (bandwidth == 1.5)
