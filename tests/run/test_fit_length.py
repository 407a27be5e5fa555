"""The batches that a fit takes, and what its steps are the mean of."""

import json

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

import saelight
from saelight.bank.checkpoint_file import ChecksummedIO
from saelight.bank.fit_length import FitLength
from saelight.schedules import Horizon
from tests.support.runs import data, trainer

SAES = {"topk": saelight.TopK(d_sae=32, k=4, lr=1e-3, clip=None, aux_coefficient=0)}


def fit_on(tmp_path, ckpt_path="last", **settings):
    """Go on from a checkpoint of `fit`'s."""
    t = trainer(tmp_path, **settings)
    t.fit(saelight.SAEBank(dict(SAES), d_in=16), data(rows=1000, val_rows=100), ckpt_path=str(ckpt_path))
    return t


class Norms(L.Callback):
    """The gradient's norm at each optimizer step."""

    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, bank, optimizer):
        self.norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in bank["topk"].parameters()])))


def fit(tmp_path, max_tokens=None, callbacks=(), batch_size=100, **settings):
    d = data(rows=1000, val_rows=100, batch_size=batch_size)
    bank = saelight.SAEBank(dict(SAES), d_in=d.d_in, max_tokens=max_tokens)
    t = trainer(tmp_path, callbacks=list(callbacks), **{"max_epochs": -1} | settings)
    t.fit(bank, d)
    return t, bank


def test_a_short_last_step_is_the_mean_of_its_batches(tmp_path):
    # Of the same rows, at the same start: 10 batches that are fewer than 32 accumulated, and one batch of all rows.
    few, whole = Norms(), Norms()
    _, bank = fit(tmp_path / "few", callbacks=[few], max_epochs=1, accumulate_grad_batches=32)
    fit(tmp_path / "whole", callbacks=[whole], batch_size=1000, max_epochs=1)
    assert few.norms == pytest.approx(whole.norms, rel=1e-4)
    assert bank.horizon == Horizon(steps=1, steps_per_epoch=1, tokens_per_step=1000)


def test_the_last_step_of_an_epoch_is_the_mean_of_its_batches(tmp_path):
    accumulated, alone = Norms(), Norms()
    frozen = {"topk": saelight.TopK(d_sae=32, k=4, lr=1e-30, clip=None, aux_coefficient=0)}
    d = data(rows=1000, val_rows=100)
    trainer(tmp_path / "a", callbacks=[accumulated], accumulate_grad_batches=4).fit(saelight.SAEBank(frozen, d_in=16), d)
    d = data(rows=1000, val_rows=100, batch_size=200)
    trainer(tmp_path / "b", callbacks=[alone]).fit(saelight.SAEBank(frozen, d_in=16), d)
    # The last two batches of 100 are the last one of 200.
    assert len(accumulated.norms) == 3
    assert accumulated.norms[-1] == pytest.approx(alone.norms[-1], rel=1e-4)


@pytest.mark.parametrize(
    ("max_tokens", "accumulate", "tokens", "steps"),
    [
        (1000, 4, 1000, 3),
        (700, 4, 700, 2),
        (701, 4, 800, 2),
        (2500, 4, 2500, 8),
        (2500, 32, 2500, 3),
        (100, 32, 100, 1),
        (950, 1, 1000, 10),
    ],
)
def test_tokens_trained_are_those_asked_for(max_tokens, accumulate, tokens, steps, tmp_path):
    t, bank = fit(tmp_path, max_tokens, accumulate_grad_batches=accumulate)
    assert (bank.tokens_seen, t.global_step) == (tokens, steps)
    assert (bank.horizon.tokens, bank.horizon.steps) == (tokens, steps)
    assert t.results[0]["state"] == "finished"


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_steps": 7}, {"max_tokens": 1700}])
def test_the_learning_rate_ends_where_training_does(settings, tmp_path):
    t, bank = fit(tmp_path, **settings, accumulate_grad_batches=3)
    assert t.global_step == bank.horizon.steps
    # After the last step the trapezoid has come down.
    assert t.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_steps_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(saelight.UserError, match=r"GradientAccumulationScheduler .* set trainer\.accumulate_grad_batches"):
        fit(tmp_path, callbacks=[GradientAccumulationScheduler({0: 1, 1: 4})], max_epochs=2)
    assert not (tmp_path / "runs").exists()


def test_where_steps_end():
    length = FitLength(batches=17, per_epoch=10, accumulated=4)
    assert [length.steps(n) for n in range(18)] == [
        *[0, None, None, None, 1, None, None, None, 2, None, 3],
        *[None, None, None, 4, None, None, 5],
    ]
    assert FitLength(batches=6, per_epoch=float("inf"), accumulated=4).steps(6) == 2


class SaveAt(L.Callback):
    def __init__(self, path, hook, batch):
        self.path, self.batch = path, batch
        setattr(self, hook, self.save)

    def save(self, trainer, *args):
        if args[-1] == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("hook", "batch", "message"),
    [
        ("on_train_batch_end", 4, "written within an optimizer step .after 5 batches and 1 steps"),
        ("on_train_batch_start", 4, "contradicts itself: 4 batches were trained on, and the data stand at 5"),
    ],
)
def test_a_checkpoint_from_within_a_step_is_refused(hook, batch, message, tmp_path):
    path = tmp_path / "some.ckpt"
    fit(tmp_path, callbacks=[SaveAt(path, hook, batch)], max_epochs=1, accumulate_grad_batches=4)
    with pytest.raises(saelight.UserError, match=message):
        fit_on(tmp_path, path, accumulate_grad_batches=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches 1, and here it is 2"),
        ({"limit_train_batches": 5}, "batches in an epoch 10, and here it is 5"),
    ],
)
def test_steps_and_epochs_of_another_length_are_refused(change, message, tmp_path):
    fit(tmp_path, max_epochs=1)
    with pytest.raises(saelight.UserError, match=message):
        fit_on(tmp_path, **{"max_epochs": 2} | change)


def test_counters_that_disagree_are_refused(tmp_path):
    t, _ = fit(tmp_path, max_epochs=1)
    path = t.folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = 0
    ChecksummedIO().save_checkpoint(checkpoint, path)
    with pytest.raises(saelight.UserError, match="contradicts itself: epoch_progress"):
        fit_on(tmp_path, max_epochs=2)


def exported_state(trainer):
    return json.loads((trainer.folder / "saes" / "topk" / "config.json").read_text())["training"]["state"]


class StopSoon(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 4


@pytest.mark.parametrize("how", ["max_time", "callback"])
def test_only_the_planned_length_is_finished(how, tmp_path):
    settings = {"max_time": {"milliseconds": 1}} if how == "max_time" else {"callbacks": [StopSoon()]}
    t, _ = fit(tmp_path, max_epochs=1, **settings)
    stopped = t.results[0]
    assert stopped["state"] == "stopped"
    assert stopped["reason"] == f"at step {t.global_step} of 10; --ckpt_path last continues"
    assert exported_state(t) == "stopped"
    again = fit_on(tmp_path)
    assert again.results[0]["state"] == "finished"
    assert again.global_step == 10


def test_every_life_of_a_run_has_the_time_of_its_own(tmp_path):
    t, _ = fit(tmp_path, max_epochs=1, max_time={"milliseconds": 1})
    steps = [t.global_step]
    while t.results[0]["state"] == "stopped":
        t = fit_on(tmp_path, max_time={"milliseconds": 500 if len(steps) > 1 else 1})
        steps.append(t.global_step)
    assert steps[0] < steps[1] < steps[-1] == 10


def test_a_run_that_trains_is_not_gone_on_with(tmp_path):
    class Second(L.Callback):
        said = ""

        def on_train_end(self, trainer, bank):
            with pytest.raises(saelight.UserError, match=r"another process trains in .*run: wait for it or stop it"):
                globals()["trainer"](tmp_path).fit(
                    saelight.SAEBank(dict(SAES), d_in=16), data(rows=1000, val_rows=100), ckpt_path="last"
                )
            self.said = "refused"

    class Saved(L.Callback):
        def on_train_batch_end(self, trainer, bank, outputs, batch, batch_idx):
            if batch_idx == 3:
                trainer.save_checkpoint(trainer.folder / "checkpoints" / "last.ckpt")

    second = Second()
    fit(tmp_path, callbacks=[Saved(), second], max_epochs=1)
    assert second.said == "refused"
    fit_on(tmp_path)  # it is free again


def test_what_was_trained_and_not_yet_written_is_written_on_resume(tmp_path):
    class PullThePlug(L.Callback):
        def on_train_end(self, trainer, bank):
            trainer.save_checkpoint(trainer.folder / "checkpoints" / "last.ckpt")
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        fit(tmp_path, callbacks=[PullThePlug()], max_epochs=1)
    t = fit_on(tmp_path)
    assert exported_state(t) == "finished"
