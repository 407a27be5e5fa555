"""What the libraries call explained variance, and how they scale activations: which of saelight's quantities each one is.

B batch, D d_in, F d_sae.
"""

from itertools import repeat

import pytest
import torch

from saelight.metrics import token_metrics
from saelight.saes import SAE, ReLU, TopK
from tests.conformance.peers import into_dictionary_learning, into_sae_lens, into_sparsify
from tests.conformance.peers.support import D, F, K, activations, assert_same, losses_and_gradients, peer, trained


@pytest.fixture
def sae() -> SAE:
    return trained(TopK(d_sae=F, k=K))


def ours(sae: SAE, *batches: torch.Tensor) -> dict[str, torch.Tensor]:
    """saelight's metrics over all batches; `explained_variance_per_token` about the mean of the first."""
    metrics = token_metrics(D, F, mean=batches[0].mean(0))
    for x_BD in batches:
        metrics.update(x=x_BD, x_hat=sae(x_BD).detach(), f=sae.encode(x_BD).detach())
    return metrics.compute()


def test_sae_lens_has_two(sae):
    """Its trainer logs `explained_variance` and `explained_variance_legacy`, its evaluations repeat them."""
    x_BD = activations()
    module = into_sae_lens.training("TopK", sae, k=K)
    config = peer("sae_lens.config").SAETrainerConfig(total_training_samples=256, train_batch_size_samples=256, lr_end=0.0)
    trainer = peer("sae_lens.training.sae_trainer").SAETrainer(config, module, repeat(x_BD))
    log = trainer.build_train_step_log_dict(into_sae_lens.step(module, x_BD), n_training_samples=256)
    metrics = ours(sae, x_BD)
    assert_same(metrics["explained_variance"], torch.tensor(log["metrics/explained_variance"]))
    assert_same(metrics["explained_variance_per_token"], torch.tensor(log["metrics/explained_variance_legacy"]))
    assert_same(metrics["l0"], torch.tensor(log["metrics/l0"]))


def test_sae_lens_evaluations_sum_over_batches_before_dividing(sae):
    batches = [activations(rows=64), activations(rows=200, seed=1)]
    calculator = peer("sae_lens.evals").ExplainedVarianceCalculator()
    for x_BD in batches:
        calculator.add_batch(sae_output=sae(x_BD).detach(), hidden_acts=x_BD)
    assert_same(ours(sae, *batches)["explained_variance"], torch.tensor(calculator.compute()))


def test_dictionary_learning_averages_the_centred_one_over_batches(sae):
    evaluate = peer("dictionary_learning.evaluation").evaluate
    batches = [activations(rows=64), activations(rows=64, seed=1)]
    theirs = evaluate(into_dictionary_learning.inference(sae), iter(batches), n_batches=2)
    each = [ours(sae, x_BD) for x_BD in batches]
    for name, their_name in {
        "explained_variance_centered": "frac_variance_explained",
        "cosine": "cossim",
        "l2_ratio": "l2_ratio",
        "reconstruction_bias": "relative_reconstruction_bias",
        "l0": "l0",
        "l1": "l1_loss",
    }.items():
        assert_same((each[0][name] + each[1][name]) / 2, torch.tensor(theirs[their_name]))


def test_sparsify_has_the_fvu_of_a_batch(sae):
    x_BD = activations()
    assert_same(ours(sae, x_BD)["fvu"], into_sparsify.coder(sae)(x_BD).fvu)


def test_sae_lens_scales_the_mean_norm_not_the_mean_square():
    """E‖x‖ = √D there, E‖x‖² = D here: its activations, and so its latents, are larger by a few per cent."""
    x_BD = activations() * 7
    scaler = peer("sae_lens.training.activation_scaler").ActivationScaler()
    scaler.estimate_scaling_factor(D, repeat(x_BD), n_batches_for_norm_estimate=3)
    scaled_BD = scaler.scale(x_BD)
    assert_same(torch.tensor(D**0.5), scaled_BD.norm(dim=1).mean())
    assert scaled_BD.square().sum(1).mean() > 1.01 * D


def test_dictionary_learning_scales_to_length_one(capsys):
    """E‖x‖² = 1 there: the same SAE has latents smaller by √D, and a coefficient of its own is then λ, not λ √D."""
    x_BD = activations()
    x_BD = x_BD * (D / x_BD.square().sum(1).mean()).sqrt()
    factor = peer("dictionary_learning.training").get_norm_factor([7 * x_BD] * 3, steps=3)
    assert_same(torch.tensor(7 * D**0.5), torch.tensor(factor))
    sae = trained(ReLU(d_sae=F, sparsity=0.3))
    losses, _ = losses_and_gradients(sae, x_BD)
    with torch.no_grad():
        for bias in (sae.b_enc, sae.b_dec):
            bias.div_(D**0.5)
    trainer = into_dictionary_learning.trainer("StandardTrainerAprilUpdate", sae, l1_penalty=0.3)
    assert_same(losses.total / D, trainer.loss(7 * x_BD / factor, step=5))
