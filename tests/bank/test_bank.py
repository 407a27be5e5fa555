"""SAEBank as a LightningModule: its optimizer, its length of training, its bookkeeping."""

import lightning as L
import pytest
import torch

import saelight
from saelight.bank import SAEBank
from saelight.errors import UserError
from saelight.ops.handover import hand_over
from saelight.ops.init import geometric_median
from saelight.saes import ReLU, TopK
from saelight.schedules import Schedule
from tests.support.banks import assert_equal, bank, fit, weights
from tests.support.variants import VARIANTS


def test_one_optimizer_with_each_saes_own_settings(activations):
    decayed = ReLU(lr=1e-2, betas=(0.8, 0.9), weight_decay=0.1, schedule=Schedule(kind="constant", warmup=0))
    saes = {"decayed": decayed, "plain": TopK(d_sae=32, lr=1e-3)}
    trainer = fit(bank(saes), activations, max_steps=5)
    (optimizer,) = trainer.optimizers
    groups = {}
    for g in optimizer.param_groups:
        groups.setdefault((g["sae"], g["weight_decay"]), []).append(g)
    assert set(groups) == {("decayed", 0.1), ("decayed", 0.0), ("plain", 0.0)}
    # W_enc and the free W_dec; the biases are not decayed.
    assert [p.ndim for g in groups["decayed", 0.1] for p in g["params"]] == [2, 2]
    assert [p.ndim for g in groups["decayed", 0.0] for p in g["params"]] == [1, 1]
    assert {(g["betas"], g["lr"]) for g in groups["decayed", 0.1] + groups["decayed", 0.0]} == {((0.8, 0.9), 1e-2)}


def test_handing_gradients_over_equals_backward():
    w = torch.nn.Parameter(torch.randn(4, 3))
    (gradient,) = torch.autograd.grad(w.square().sum(), [w])
    pointer = gradient.data_ptr()
    handed = [gradient]
    del gradient
    loss = hand_over(torch.tensor(1.0), handed, [w])
    del handed
    loss.backward()
    torch.testing.assert_close(w.grad, 2 * w.detach())
    assert w.grad.data_ptr() == pointer, "the gradient was copied"
    hand_over(torch.tensor(1.0), [torch.ones(4, 3)], [w]).mul(0.5).backward()
    torch.testing.assert_close(w.grad, 2 * w.detach() + 0.5)


def test_accumulated_halves_equal_one_batch(activations):
    # Without AuxK, which is a ratio and not linear in the tokens.
    saes = {"relu": VARIANTS["relu"], "gated": VARIANTS["gated"], "topk": TopK(d_sae=40, k=4, aux_coefficient=0)}
    whole, halves = bank(saes), bank(saes)
    fit(whole, activations, batch_size=64, max_steps=10)
    fit(halves, activations, batch_size=32, accumulate_grad_batches=2, max_steps=10)
    assert whole.horizon == halves.horizon._replace(steps_per_epoch=whole.horizon.steps_per_epoch)
    for name in saes:
        for (key, value), other in zip(whole[name].named_parameters(), halves[name].parameters(), strict=True):
            torch.testing.assert_close(other, value, rtol=0, atol=1e-5, msg=f"{name} {key}")


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 2}, 64),
        ({"max_steps": 10, "max_epochs": -1}, 10),
        ({"max_epochs": 3, "max_steps": 40}, 40),
        ({"max_epochs": 1, "max_tokens": 1000}, 16),
        ({"max_epochs": -1, "max_tokens": 3000}, 47),
        ({"max_epochs": 1, "max_steps": 9, "max_tokens": 1000}, 9),
    ],
)
def test_training_ends_at_the_first_limit(limits, steps, activations):
    limits = dict(limits)
    b = bank({"a": ReLU(d_sae=8)}, max_tokens=limits.pop("max_tokens", None))
    trainer = fit(b, activations, **limits)
    assert trainer.global_step == b.horizon.steps == steps
    assert b.tokens_seen == steps * 64


def test_latents_are_dead_after_exactly_that_many_tokens(activations):
    b = bank({"a": TopK(d_sae=40, k=1, dead_after=640, aux_coefficient=0, lr=1e-9)})
    fit(b, activations, max_steps=12)
    fired = torch.stack([(b["a"].encode(x) > 0).any(0) for x in activations[: 12 * 64].split(64)])
    ages = torch.tensor([64 * int(column.flip(0).int().argmax()) if column.any() else 12 * 64 for column in fired.T])
    assert torch.equal(b["a"].tokens_since_fired, ages)
    assert torch.equal(b["a"].dead(), ages >= 640)


def test_dead_after_defaults_to_a_twentieth_of_training(activations):
    b = bank({"a": ReLU(d_sae=8)})
    fit(b, activations)
    assert b["a"].dead_after == 102


def test_a_checkpoint_loads_fits_and_loads_again(tmp_path, activations):
    first = bank()
    trainer = fit(first, activations, max_steps=3)
    for generation in range(3):
        path = tmp_path / f"{generation}.ckpt"
        trainer.save_checkpoint(path)
        loaded = SAEBank.load_from_checkpoint(path, weights_only=True)
        for name in VARIANTS:
            assert_equal(weights(loaded, name), weights(first, name))
            assert loaded[name].config == first[name].config
        trainer = fit(loaded, activations, max_steps=3 + generation)
        # A fit of its own, not the old one going on.
        assert (loaded.horizon.steps, loaded.tokens_seen) == (3 + generation, 64 * (3 + generation))
        first = loaded


def test_fitting_a_loaded_bank_does_not_start_it_afresh(tmp_path, activations):
    b = bank()
    fit(b, activations, max_steps=3).save_checkpoint(tmp_path / "a.ckpt")
    loaded = SAEBank.load_from_checkpoint(tmp_path / "a.ckpt")
    before = weights(loaded, "relu")

    class NoStep(L.Callback):
        def on_train_batch_start(self, trainer, bank, batch, batch_idx):
            assert_equal(weights(bank, "relu"), before)
            trainer.should_stop = True
            return -1

    fit(loaded, activations, callbacks=[NoStep()])


def test_geometric_median_resists_outliers():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    x[:50] += 100
    assert geometric_median(x).norm() < 0.5 < x.mean(0).norm()
    line = torch.tensor([[0.0], [1.0], [10.0]])
    torch.testing.assert_close(geometric_median(line), torch.tensor([1.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("saes", "message"),
    [
        ({}, "name at least one"),
        ({"a/b": ReLU()}, "cannot name an SAE"),
        ({".hidden": ReLU()}, "cannot name an SAE"),
        ({"a": TopK(d_sae=8, k=9)}, "SAE 'a': k = 9 exceeds d_sae = 8"),
        ({"a": ReLU(d_sae=8, expansion=2)}, "exclude each other"),
        ({"a": ReLU(sparsity=-1)}, "SAE 'a': sparsity must be at least 0, got -1"),
        ({"a": ReLU(schedule=Schedule(kind="cosine", T_0=5))}, "T_0 and T_mult belong to warm_restarts"),
    ],
)
def test_bad_saes_are_refused(saes, message):
    with pytest.raises(UserError, match=message):
        SAEBank(saes, d_in=16)


def test_other_precisions_are_refused(activations):
    with pytest.raises(UserError, match="bf16-mixed or 32-true"):
        fit(bank(), activations, precision="bf16-true")
    with pytest.raises(UserError, match=r"one gradient scaler.*use bf16-mixed"):
        saelight.Trainer(precision="16-mixed")


def test_training_without_end_is_refused(activations):
    with pytest.raises(UserError, match="training has no end"):
        fit(bank(), activations, max_epochs=-1)
