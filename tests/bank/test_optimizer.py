"""One AdamW for all: whose learning rate is whose, and what resampling makes it forget."""

import lightning as L
import torch

from saelight.bank.optimizer import adamw, learning_rates
from saelight.saes import JumpReLU, ReLU
from saelight.schedules import Horizon, Schedule
from tests.support.banks import assert_equal, bank, fit, weights


def test_thresholds_have_a_learning_rate_that_reaches():
    horizon = Horizon(500, 500, 64)
    own = {"jump": JumpReLU(lr=1e-3).build(16), "given": JumpReLU(lr=1e-3, threshold_lr=0.5).build(16)}
    optimizer = adamw(own.items(), horizon)["optimizer"]
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(own["jump"].log_threshold)] == 20 / 500
    assert rates[id(own["given"].log_threshold)] == 0.5
    assert rates[id(own["jump"].W_enc)] == 1e-3
    # A long run has time: thresholds are then as slow as the weights.
    assert own["jump"].learning_rates(Horizon(10**6, 10**6, 64)) == {"log_threshold": 1e-3}


def test_the_logged_learning_rate_is_the_weights():
    constant = Schedule(kind="constant", warmup=0)
    saes = {name: JumpReLU(lr=lr, schedule=constant, weight_decay=0.1).build(16) for name, lr in (("a", 1e-3), ("b", 1e-2))}
    assert learning_rates(adamw(saes.items(), Horizon(100, 100, 64))["optimizer"]) == {"a": 1e-3, "b": 1e-2}


class Watch(L.Callback):
    """Silences some latents at the start, and keeps their optimizer moments of right after the resampling."""

    def __init__(self, silent: int, at: int) -> None:
        self.silent, self.at = silent, at

    def on_train_start(self, trainer, bank):
        with torch.no_grad():
            bank["a"].b_enc[: self.silent] = -100.0

    def on_train_batch_end(self, trainer, bank, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            sae = bank["a"]
            state = trainer.optimizers[0].state
            self.moments = [
                state[sae.W_enc]["exp_avg"][:, : self.silent].clone(),
                state[sae.W_dec]["exp_avg_sq"][: self.silent].clone(),
                state[sae.b_enc]["exp_avg"][: self.silent].clone(),
            ]
            self.others = state[sae.W_enc]["exp_avg"][:, self.silent :].abs().sum(0)
            self.b_enc, self.directions = sae.b_enc.detach().clone(), sae.W_dec.detach().clone()


def test_dead_latents_are_resampled_and_live(activations):
    config = ReLU(d_sae=24, lr=3e-3, sparsity=0.02, resample_every=10, schedule=Schedule(kind="constant"))
    watch, saes = Watch(silent=6, at=10), bank({"a": config, "sibling": ReLU(d_sae=24)})
    fit(saes, activations, callbacks=[watch])
    assert all((moments == 0).all() for moments in watch.moments)
    assert (watch.others > 0).all()
    assert (watch.b_enc[:6] == 0).all()
    torch.testing.assert_close(watch.directions[:6].norm(dim=1), torch.ones(6))
    assert ((saes["a"].encode(activations) > 0).any(0)[:6]).all(), "silent at the start, alive at the end"
    alone = bank({"sibling": ReLU(d_sae=24)})
    fit(alone, activations)
    assert_equal(weights(saes, "sibling"), weights(alone, "sibling"))
