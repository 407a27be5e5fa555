"""fit says before it trains where the data would make its numbers untrue, once, with the remedy; sound data get no word."""

import warnings

import pytest
import torch

import saelight
from saelight.data.data_concerns import concerns
from saelight.data.datamodule import ActivationDataModule
from saelight.errors import UserError
from tests.data.folders import with_sinks, write

N = 2000


def data(path, **settings):
    return ActivationDataModule(str(path), **{"batch_size": 100, "normalise": "none"} | settings)


def said(module):
    sample = module.init_sample()
    return concerns(module, *(sample if isinstance(sample, tuple) else (sample,)))


def test_sinks_are_named_with_count_share_and_remedy(tmp_path):
    x = with_sinks(N)
    path = write(tmp_path / "s", x)
    (line,) = said(data(path, val_fraction=0.5))
    squares = x[: N // 2].double().square().sum(1).sort().values
    assert line.startswith("8 of all 1,000 rows of the activations are longer than 10 times the median norm and hold ")
    assert f"hold {squares[-8:].sum() / squares.sum():.1%} of Σ‖x‖²" in line
    assert f"`saelight shards filter {path} OUT`" in line


def test_each_side_and_validation_data_are_looked_at(tmp_path):
    clean = write(tmp_path / "clean", torch.randn(N, 5))
    sinks = write(tmp_path / "sinks", with_sinks(N))
    (line,) = said(data(clean, target_path=str(sinks), val_fraction=0))
    assert "rows of the targets are" in line
    assert "saelight shards filter FOLDER_OF_BOTH OUT" in line
    clean = write(tmp_path / "clean16", torch.randn(N, 16))
    (line,) = said(data(clean, val_path=str(sinks)))
    assert "16 of all 2,000 rows of the validation activations" in line
    assert said(data(clean)) == []


def test_a_source_without_norms_is_sampled():
    x = with_sinks(N)
    (line,) = concerns(None, x)
    assert line.startswith("16 of all 2,000 rows")
    assert "RowFilter" in line


def test_flat_data(tmp_path):
    x = torch.randn(N, 8)
    x[:, 2] = 5
    (line,) = said(data(write(tmp_path / "dimension", x)))
    assert line.startswith("1 of 8 dimensions of the activations are the same in all of 1,960 rows")
    with pytest.raises(UserError, match=r"all activations are equal \(1,960 rows looked at\): there is nothing to learn"):
        said(data(write(tmp_path / "rows", torch.ones(N, 8))))


def test_fit_warns_once_before_its_first_step_and_not_when_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "s", with_sinks(N))
    before = []

    def fit(steps, **fields):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")

            def words():
                return [text for w in caught if "times the median norm" in (text := str(w.message))]

            class AtTheFirstStep(saelight.SAECallback):
                affects_weights = False

                def on_train_start(self, *_):
                    before.extend(words())

            t = saelight.Trainer(
                max_steps=steps, name="a", accelerator="cpu", enable_progress_bar=False, callbacks=[AtTheFirstStep()]
            )
            t.fit(saelight.SAEBank({"a": saelight.TopK(expansion=2, k=4)}, d_in=16), data(path), **fields)
        return words()

    (line,) = fit(2)
    assert before == [line]
    assert line.startswith("data: 16 of all 1,960 rows")
    assert fit(4, ckpt_path="last") == []
