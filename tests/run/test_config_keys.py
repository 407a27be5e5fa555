"""The arguments that a sweep checks without Lightning are those of the classes themselves."""

import inspect

import lightning as L

from saelight import SAEBank, Trainer
from saelight.run import config_keys


def defaults(cls: type) -> dict:
    return {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "kwargs"}


def test_they_are_the_trainers():
    real = defaults(L.Trainer) | defaults(Trainer)
    assert config_keys.TRAINER.keys() == real.keys()
    # None says that Lightning decides later what it comes to.
    said = {name: default for name, default in real.items() if default is not None}
    assert {name: config_keys.TRAINER[name] for name in said} == said
    assert real.keys() >= config_keys.WEIGHTLESS


def test_what_lightning_decides_later_comes_to_what_is_said(tmp_path):
    trainer = Trainer(root=str(tmp_path), accelerator="cpu")
    decided = ("limit_train_batches", "limit_val_batches", "val_check_interval", "num_sanity_val_steps", "precision")
    assert {name: getattr(trainer, name) for name in decided} == {name: config_keys.TRAINER[name] for name in decided}


def test_they_are_the_banks():
    real = {name: None if default is inspect.Parameter.empty else default for name, default in defaults(SAEBank).items()}
    assert real == config_keys.BANK
