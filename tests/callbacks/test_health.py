"""Warnings of trouble: each is provoked by a training that really goes wrong, and healthy ones are silent."""

import csv
import re
import warnings

import lightning as L
import pytest

import saelight
from saelight.callbacks import WatchHealth
from saelight.schedules import Schedule
from tests.support.runs import data, trainer

STEPS = 200
GOOD = saelight.TopK(d_sae=64, k=4, lr=3e-3)
STEADY = Schedule(kind="constant", warmup=0)


def warned(tmp_path, saes, callbacks=(), rows=100 * STEPS, ckpt_path=None, **kwargs) -> list[str]:
    """What a real training of `saes` warns of."""
    t = trainer(tmp_path, callbacks=list(callbacks), **{"val_check_interval": 0.25, "log_every_n_steps": 5} | kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        t.fit(saelight.SAEBank(dict(saes), d_in=16), data(rows=rows), ckpt_path=ckpt_path)
    return [str(w.message) for w in caught if str(w.message).startswith("SAE ")]


class Loud(L.Callback):
    """One batch comes a hundred times too large."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, bank, batch, batch_idx):
        if trainer.global_step == self.step - 1:
            batch.mul_(100)


TROUBLES = {
    "killed by its penalty": (
        saelight.ReLU(d_sae=64, sparsity=1000.0, lr=1e-2),
        r"only 0.0% of its latents fired in .*: lower sparsity \(λ is 1e\+03\) or lower lr or set resample",
    ),
    "killed by its rate": (
        saelight.TopK(d_sae=1024, k=1, lr=10.0, clip=None),
        r"only \d\.\d% of its latents fired in .*: lower lr or raise aux_coefficient",
    ),
    "killed by its target": (
        saelight.ReLU(d_sae=64, target_l0=0.1, lr=1.0, schedule=STEADY),
        r"only 0.0% of its latents fired in .*: raise target_l0 or lower lr",
    ),
    "dense": (
        saelight.ReLU(d_sae=64, sparsity=1e-6, lr=1e-4),
        r"L0 has stayed at \d\d.\d since step \d+, of 64 latents: raise sparsity \(λ is 1e-06\), or lr",
    ),
    "off its target": (
        saelight.Gated(d_sae=64, target_l0=3.0, lr=1e-9),
        r"L0 has stayed at \d\d.\d since step \d+, far from target_l0 = 3: raise lr",
    ),
    "half of it dead": (
        saelight.TopK(d_sae=256, k=2, lr=3e-3, aux_coefficient=0),
        r"\d\d% of its latents are dead, silent in the last 1000 tokens: lower lr or raise aux_coefficient",
    ),
    "short of its target": (
        saelight.Gated(d_sae=64, target_l0=3.0, lr=1e-9),
        r"its L0 is .* in the last validation, [+-]\d+% off target_l0 = 3: train longer, change lr, or",
    ),
    "worse than the mean": (
        saelight.TopK(d_sae=64, k=4, lr=1.0, clip=None, schedule=STEADY),
        r"FVU is \d+\.\d\d (in the validation at step \d+|of the last 5 logged batches), worse than predicting the mean: ",
    ),
}


@pytest.mark.parametrize("case", TROUBLES)
def test_trouble_is_told_once_with_its_remedy(case, tmp_path):
    config, message = TROUBLES[case]
    messages = warned(tmp_path, {"good": GOOD, "bad": config})
    # What kills an SAE may show in more than one way.
    assert len([m for m in messages if re.match("SAE 'bad': " + message, m)]) == 1, messages
    assert not [m for m in messages if "'good'" in m]


def test_a_spike_is_told_of_each_sae(tmp_path):
    saes = {"a": GOOD, "b": saelight.ReLU(d_sae=64, lr=3e-3)}
    messages = warned(tmp_path, saes, [Loud(step=160)])
    assert len(messages) == 2, messages
    for name, message in zip(saes, messages, strict=True):
        told = rf"SAE '{name}': its reconstruction loss rose to .* at step 160, \d+ times the median before: lower lr"
        assert re.match(told, message)


def test_a_warm_restart_is_no_spike(tmp_path):
    restarts = Schedule(kind="warm_restarts", T_0=150, T_mult=1, warmup=0)
    assert warned(tmp_path, {"a": saelight.ReLU(d_sae=64, sparsity=0.0, lr=0.1, schedule=restarts)}) == []
    with (tmp_path / "runs" / "run" / "logs" / "a" / "metrics.csv").open() as file:
        rows = {int(row["step"]): row["train/reconstruction"] for row in csv.DictReader(file) if row["train/reconstruction"]}
    assert float(rows[155]) > 10 * float(rows[150])


def test_healthy_saes_are_not_talked_about(tmp_path):
    saes = {
        "topk": GOOD,
        "batch_topk": saelight.BatchTopK(d_sae=32, k=4, lr=3e-3),
        "narrow": saelight.TopK(d_sae=6, k=6, lr=3e-3),
        "relu": saelight.ReLU(d_sae=64, sparsity=0.3, lr=3e-3),
        "relu_target": saelight.ReLU(d_sae=64, target_l0=4.0),
        "gated": saelight.Gated(d_sae=32, sparsity=0.5, lr=3e-3),
        "jump_relu": saelight.JumpReLU(d_sae=32, lr=3e-3),
        "matryoshka": saelight.Matryoshka(d_sae=32, base=saelight.BatchTopK(k=4), lr=3e-3),
    }
    assert warned(tmp_path, saes, rows=100 * 300) == []
    # Of a few steps nothing can be said.
    assert warned(tmp_path, {"bad": TROUBLES["killed by its penalty"][0]}, rows=9000) == []


def test_no_logger_and_no_validation_are_needed(tmp_path):
    config, message = TROUBLES["worse than the mean"]
    messages = warned(tmp_path, {"bad": config}, logger=False, limit_val_batches=0)
    assert [m for m in messages if re.match("SAE 'bad': " + message, m) and "logged batches" in m]


def test_what_was_told_is_not_told_again_after_a_resume(tmp_path):
    bad = {"bad": TROUBLES["dense"][0]}
    assert len(warned(tmp_path, bad)) == 1
    assert warned(tmp_path, bad, ckpt_path="last", max_epochs=2) == []


def test_a_sae_that_rests_is_left_alone(tmp_path):
    class Retire(L.Callback):
        def on_train_batch_start(self, trainer, bank, batch, batch_idx):
            if trainer.global_step == 10:
                bank.retire("bad", "enough")

    bad = TROUBLES["worse than the mean"][0]
    assert warned(tmp_path, {"good": GOOD, "bad": bad}, [Retire()]) == []


def test_each_warning_can_be_turned_off(tmp_path):
    bad = {"bad": TROUBLES["dense"][0]}
    assert warned(tmp_path, bad, [WatchHealth(troubles=["alive", "fvu", "spike"])]) == []
    with pytest.raises(saelight.UserError, match="troubles must be some of alive, dead, l0, target, fvu, spike"):
        WatchHealth(troubles=["died"])
