"""The dead latents are found in time without being counted in each step, whatever else a run does."""

import copy
import pickle

import lightning as L
import pytest
import torch

from saelight.saes import JumpReLU, TopK
from saelight.schedules import Horizon
from tests.support.banks import assert_equal, bank, fit, weights

SAES = {
    "topk": TopK(d_sae=40, k=2, lr=1e-3, dead_after=900),
    "jump": JumpReLU(d_sae=40, lr=1e-3, sparsity=1.0, dead_after=1000),
}
EARLY = {"topk": TopK(d_sae=40, k=2, lr=1e-3, dead_after=100)}
"""Dead within ten steps, so that all are looked at all along."""


class Watch(L.Callback):
    """The steps after which the dying were others, and whether a dead latent was ever not among them."""

    def __init__(self) -> None:
        self.changed: set[int] = set()
        self.missed = 0

    def on_train_start(self, trainer, bank):
        self.before = {name: bank[name].dying.clone() for name in bank.names}

    def on_train_batch_start(self, trainer, bank, batch, batch_idx):
        for name in bank.names:
            sae = bank[name]
            self.missed += int((sae.dead() & ~sae.dying).sum())
            if not torch.equal(sae.dying, self.before[name]):
                self.changed.add(trainer.global_step)
                self.before[name] = sae.dying.clone()


@pytest.mark.parametrize(
    ("saes", "settings"),
    [
        (SAES, {}),
        (SAES, {"batch_size": 16, "accumulate_grad_batches": 3, "log_every_n_steps": 3}),
        (SAES, {"batch_size": 63}),
        (EARLY, {}),
    ],
    ids=["plain", "accumulated, logged", "uneven batches", "early"],
)
def test_no_dead_latent_is_missed_and_others_are_looked_at_every_ten_steps(saes, settings, activations):
    watch = Watch()
    trained = bank(saes)
    fit(trained, activations, callbacks=[watch], **settings)
    assert watch.missed == 0
    assert bool(watch.changed) == (saes is SAES)
    assert all(step % 10 == 0 for step in watch.changed)
    assert any(bool(trained[name].dead().any()) for name in saes)


def test_logging_changes_nothing(activations):
    plain, watched = bank(SAES), bank(SAES)
    fit(plain, activations)
    fit(watched, activations, log_every_n_steps=1)
    for name in SAES:
        assert_equal(weights(plain, name), weights(watched, name))


def test_a_copy_knows_what_is_on_its_way():
    horizon, sae = Horizon(100, 100, 10), SAES["topk"].build(16)
    sae.tokens_since_fired[7:20] = 10**6
    sae.note_steps(8, horizon)
    loaded = SAES["topk"].build(16, seed=3)
    loaded.load_state_dict(sae.state_dict())
    others = [copy.deepcopy(sae), pickle.loads(pickle.dumps(sae)), loaded]
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert sae.taught(x) is None
    for one in (sae, *others):
        one.note_steps(10, horizon)
        assert one.taught(x).latents_A.tolist() == list(range(7, 20))
    sae.tokens_since_fired[8] = 0
    assert sae.taught(x).latents_A.tolist() == [7, *range(9, 20)]
