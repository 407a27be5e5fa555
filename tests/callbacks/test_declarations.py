"""What is declared of callbacks without Lightning is what the classes are."""

import inspect
import subprocess
import sys
from dataclasses import fields

import lightning as L
import pytest

import saelight
from saelight import callbacks
from saelight.callbacks.declarations import DECLARED, OBSERVING
from saelight.errors import UserError
from tests.support.banks import bank, fit


def test_declarations_import_neither_lightning_nor_torch():
    code = (
        "import sys, saelight.callbacks.declarations; "
        "assert not {'torch', 'lightning', 'pytorch_lightning', 'lightning_fabric'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_callback_is_declared():
    assert set(callbacks.__all__) - {"SAECallback"} == DECLARED.keys()


@pytest.mark.parametrize("name", DECLARED)
def test_a_class_takes_what_its_declaration_has(name):
    cls, declaration = getattr(callbacks, name), DECLARED[name]
    assert issubclass(cls, declaration)
    assert list(inspect.signature(cls).parameters) == [field.name for field in fields(declaration)]
    assert cls.affects_weights is declaration.affects_weights is (name in ("StopEarly", "Halving", "PruneTrials"))


def test_lightnings_observing_callbacks_exist():
    assert all(hasattr(L.pytorch.callbacks, name) for name in OBSERVING)


def test_positional_settings_and_checks():
    assert saelight.StopEarly(3, ["fvu"]).patience == 3
    with pytest.raises(UserError, match="StopEarly: patience must be at least 1, got 0"):
        DECLARED["StopEarly"](patience=0)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("on_retired", "on_retire"),
        ("on_quarantined", "on_quarantine"),
        ("on_records", "on_record"),
        ("on_fit_strat", "on_fit_start"),
    ],
)
def test_a_misspelt_hook_is_refused_when_the_class_is_defined(misspelt, meant):
    with pytest.raises(UserError, match=f"Mine: no hook is called '{misspelt}'; did you mean '{meant}'"):
        type("Mine", (saelight.SAECallback,), {misspelt: lambda self, *args: None})


class Hearing(saelight.SAECallback):
    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def on_train_end(self, trainer, bank) -> None:
        self.steps = trainer.global_step
        bank.retire("relu", "enough", state="pruned")

    def on_record(self, trainer, bank, values) -> None:
        self.heard.append(("record", trainer.global_step))

    def on_retire(self, trainer, bank, name, reason) -> None:
        self.heard.append((name, reason, bank.outcome(name).state))


def test_a_users_callback_hears_of_each_sae(activations):
    saes, hearing = bank(), Hearing()
    assert saelight.SAECallback.affects_weights
    fit(saes, activations, callbacks=[hearing], log_every_n_steps=1)
    records = [("record", step) for step in range(1, 1 + hearing.steps)]
    assert hearing.heard == [*records, ("relu", "enough", "pruned")]
    assert saes.inactive == {saes.names.index("relu")}


def test_a_callback_that_the_bank_would_not_call_is_refused(activations):
    plain = type("Plain", (L.Callback,), {"on_record": lambda self, *args: None})
    with pytest.raises(UserError, match=r"Plain.on_record would never be called: derive it from saelight.SAECallback"):
        fit(bank(), activations, callbacks=[plain()])
