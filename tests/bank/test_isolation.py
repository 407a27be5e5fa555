"""The flagship: SAEs trained together come out as if each had been alone, and one's failure is its own."""

import pytest
import torch

from saelight.bank.isolation import Quarantine, clip_gradients, derived_seed
from saelight.errors import UserError
from saelight.saes import ReLU, TopK
from saelight.schedules import Schedule
from tests.support.banks import assert_equal, bank, fit, weights
from tests.support.callbacks import Explode, Poison
from tests.support.variants import VARIANTS

MIXED = VARIANTS | {
    "wide": ReLU(expansion=5, lr=3e-3, clip=0.01, weight_decay=0.1, betas=(0.5, 0.9)),
    "narrow": TopK(d_sae=7, k=7, lr=1e-2, clip=None, schedule=Schedule(kind="linear", warmup=5)),
}


@pytest.fixture(scope="module", params=["32-true", "bf16-mixed"])
def together(request, activations):
    """All of them trained as one bank, and the precision."""
    saes = bank(MIXED)
    fit(saes, activations, precision=request.param)
    return saes, request.param


@pytest.mark.parametrize("name", MIXED)
def test_together_equals_alone_bitwise(name, together, activations):
    saes, precision = together
    alone = bank({name: MIXED[name]})
    fit(alone, activations, precision=precision)
    assert_equal(weights(saes, name), weights(alone, name))


@pytest.fixture(scope="module")
def healthy(activations):
    saes = bank()
    fit(saes, activations)
    return saes


@pytest.mark.parametrize("victim", VARIANTS)
def test_a_poisoned_sae_leaves_its_siblings_bitwise_unchanged(victim, healthy, activations):
    poisoned = bank()
    poison = Poison(victim, after=5)
    fit(poisoned, activations, callbacks=[poison])
    assert poison.reasons == [(victim, "non-finite loss at step 5")]
    for name in VARIANTS:
        if name != victim:
            assert_equal(weights(healthy, name), weights(poisoned, name))
    assert poisoned.quarantine.stopped == {list(VARIANTS).index(victim)}


def test_a_quarantined_sae_keeps_its_last_finite_weights(healthy, activations):
    explode = Explode("topk", after=7)
    victim = bank()
    fit(victim, activations, callbacks=[explode])
    now = weights(victim, "topk")
    assert all(torch.equal(now[key], explode.before[key]) for key in ("W_enc", "W_dec", "b_enc", "b_dec"))
    i = victim.names.index("topk")
    assert victim.quarantine.step_N.tolist() == [7 if j == i else -1 for j in range(len(VARIANTS))]
    assert victim.quarantine.describe(i) == "non-finite gradient at step 7"
    assert_equal(weights(victim, "relu"), weights(healthy, "relu"))


def test_training_ends_when_every_sae_is_quarantined(activations):
    only = bank({"topk": VARIANTS["topk"]})
    trainer = fit(only, activations, callbacks=[Poison("topk", after=3)])
    assert trainer.global_step == 4


def test_adding_an_sae_changes_no_seed():
    assert derived_seed(0, "a") == derived_seed(0, "a") != derived_seed(0, "b")
    assert bank({"a": ReLU()}).seeds[0] == bank({"b": ReLU(), "a": ReLU()}).seeds[1]
    assert bank({"a": ReLU(seed=5)}).seeds == [5]


def test_clipping_is_pytorchs():
    gradients = [torch.randn(3, 4), torch.randn(5)]
    expected = [g.clone() for g in gradients]
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in expected]
    for p, g in zip(parameters, expected, strict=True):
        p.grad = g
    norm, finite = clip_gradients(gradients, 0.5)
    assert torch.nn.utils.clip_grad_norm_(parameters, 0.5) == norm
    assert finite
    for g, p in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(g, p.grad)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_non_finite_gradient_becomes_zero_as_a_whole(bad):
    gradients = [torch.ones(3), torch.tensor([1.0, bad])]
    _, finite = clip_gradients(gradients, 1.0)
    assert not finite
    assert all((g == 0).all() for g in gradients)


def test_failures_are_known_once_they_are_read_or_saved():
    quarantine = Quarantine(3)
    for step, losses, norms in [
        (3, (1.0, 1.0, 1.0), (2.0, torch.nan, 2.0)),
        (4, (torch.inf, 1.0, 1.0), (torch.nan, 2.0, 2.0)),
    ]:
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            for half in (loss, loss):  # two batches that are accumulated
                quarantine.note_loss(i, torch.tensor(half))
            quarantine.note_gradient(i, torch.tensor(norm), step)
    assert quarantine.step_N.tolist() == [-1, -1, -1]
    assert quarantine.state_dict()["step_N"].tolist() == [4, 3, -1]
    assert quarantine.newly_stopped() == [0, 1]
    assert quarantine.newly_stopped() == []
    assert [quarantine.describe(i) for i in (0, 1)] == ["non-finite loss at step 4", "non-finite gradient at step 3"]


def test_shared_settings_that_would_couple_saes_are_refused(activations):
    with pytest.raises(UserError, match="its own `clip`"):
        fit(bank(), activations, gradient_clip_val=1.0)
