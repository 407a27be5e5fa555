"""Declarations: found by any name without Lightning, described and identified without training."""

import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from saelight.data import datamodule, sources
from saelight.data.activation_source import ActivationSource
from saelight.data.datamodule import ActivationDataModule, RowsDataModule, SyntheticDataModule
from saelight.data.stream.order import BLOCK, WINDOW
from saelight.data.synthetic_source import SyntheticSource
from saelight.errors import UserError
from tests.data.folders import counted, write


class Foreign(pl.LightningDataModule):
    """Declares nothing."""


class OwnInit(SyntheticDataModule):
    """Whose settings are no fields."""

    def __init__(self, tilt: float) -> None:
        super().__init__(rows=100)


class Tilted(SyntheticDataModule):
    """The same settings, other batches."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return super().on_after_batch_transfer(batch, dataloader_idx) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1000 numbered rows in documents of 30."""
    return str(write(tmp_path_factory.mktemp("data") / "s", counted(1000), document=30))


@pytest.mark.parametrize("home", ["", "saelight.", "saelight.data.datamodule."])
def test_ours_are_found_by_every_name(home):
    assert sources.find(f"{home}ActivationDataModule") is ActivationSource
    assert sources.find(f"{home}SyntheticDataModule") is SyntheticSource


def test_every_data_module_has_a_declaration_where_find_looks():
    bound = {c for c in vars(datamodule).values() if isinstance(c, type) and issubclass(c, RowsDataModule)} - {
        RowsDataModule
    }
    assert len(bound) >= 2
    assert all(issubclass(cls, sources.find(cls.__name__)) for cls in bound)


def test_a_users_class_is_found_and_says_whether_it_declares_itself():
    assert sources.find(f"{__name__}.Tilted") is Tilted
    assert sources.find(f"{__name__}.Foreign") is None
    assert sources.find(f"{__name__}.OwnInit") is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("ActivationsDataModule", "no data module 'ActivationsDataModule'; did you mean 'ActivationDataModule'"),
        ("saelight.SyntheticDatamodule", "did you mean 'SyntheticDataModule'"),
        (f"{__name__}.Tiltd", "did you mean 'Tilted'"),
        (f"{__name__}.counted", "is no LightningDataModule; derive it from RowsDataModule"),
        ("no.such.module.Data", r"cannot be imported \(No module named 'no'\)"),
    ],
)
def test_what_is_no_data_module_gets_one_line(path, words):
    with pytest.raises(UserError, match=words) as caught:
        sources.find(path)
    assert "\n" not in str(caught.value)


def test_none_of_it_imports_lightning(folder):
    code = f"""
import sys
from saelight.data import sources
print(sources.find("ActivationDataModule")({folder!r}).describe(), sources.find("SyntheticDataModule")().identity())
assert not [name for name in sys.modules if name.startswith(("lightning", "pytorch_lightning"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"val_fraction": 0.1}, {"val_fraction": 0}, {"max_samples": 300}, {"max_samples": 5000}, {"batch_size": 7}],
)
def test_described_rows_are_those_that_training_uses(folder, settings):
    data = ActivationDataModule(folder, **settings)
    found = ActivationSource(folder, **settings).describe()
    assert found == data.describe()
    assert found[:5] == (4, None, data.n_train_rows, data.batch_size, 16)


def test_pairs_are_described_with_both_widths(folder, tmp_path):
    target = write(tmp_path / "y", torch.randn(1000, 3), document=30)
    found = ActivationSource(folder, target_path=target, val_fraction=0).describe()
    assert (found.d_in, found.d_out, found.row_bytes) == (4, 3, 28)


def test_streams_hold_windows_and_never_more_than_the_data():
    large = SyntheticSource(d_in=4096, n_features=1_000_000, mean_l0=50, rows=10**9).describe()  # none of them is made
    assert large.train_rows == 10**9
    assert 2 * WINDOW * BLOCK * 4 * 4096 <= large.stream_bytes < 3 * WINDOW * BLOCK * 4 * 4096
    assert SyntheticSource(d_in=8, rows=1000).describe().stream_bytes < 3 * 1000 * 32


def test_what_cannot_be_read_is_no_error_before_it_is_asked_for(tmp_path):
    source = ActivationSource(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no shards at"):
        source.describe()
    assert source.identity() == ActivationSource(str(tmp_path / "nowhere"), predict_rows=3).identity()
    assert source.identity() != ActivationSource(tmp_path / "elsewhere").identity()


def same(folder, path):
    other = ActivationSource(folder)
    return [
        (ActivationSource(folder, seed=np.int64(0), val_fraction=2e-2), other),
        (ActivationSource(path, val_batch_size=5, predict_rows=9), other),
        (ActivationDataModule(path), other),
        (ActivationSource(folder, val_path=path), ActivationSource(folder, val_path=folder, val_fraction=0.5)),
        (SyntheticSource(noise=0, mean_l0=8), SyntheticSource()),
        (SyntheticSource(magnitude_std=1e-3), SyntheticSource(magnitude_std=0.001)),
        (SyntheticDataModule(rows=100), SyntheticSource(rows=100, val_batch_size=1)),
    ]


def test_spelling_and_place_are_no_part_of_identity(folder, tmp_path):
    path = write(tmp_path / "moved", counted(1000), document=30)
    assert all(one.identity() == other.identity() for one, other in same(folder, path))


def test_whatever_can_change_weights_is_part_of_identity(folder, tmp_path):
    path = write(tmp_path / "s", counted(1000) + 1, document=30)
    target = write(tmp_path / "y", counted(1000, 3), document=30)
    activations = [
        ActivationSource(folder),
        ActivationSource(path),
        ActivationSource(folder, val_fraction=0.1),
        ActivationSource(folder, val_path=path),
        ActivationSource(folder, target_path=target),
        ActivationSource(folder, batch_size=10),
        ActivationSource(folder, max_samples=10),
        ActivationSource(folder, seed=1),
        ActivationSource(folder, normalise="none"),
    ]
    synthetic = [
        SyntheticSource(rows=100),
        SyntheticSource(rows=101),
        SyntheticSource(rows=100, noise=0.1),
        Tilted(rows=100),
    ]
    found = [str(source.identity()) for source in activations + synthetic]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"batch_size": "many"}, "data.batch_size must be a whole number, got 'many'"),
        ({"batch_size": True}, "data.batch_size must be a whole number"),
        ({"max_samples": 2.5}, "data.max_samples must be a whole number or null"),
        ({"noise": None}, "data.noise must be a number"),
        ({"normalise": "std"}, "data.normalise must be standard or rms or none, got 'std'"),
    ],
)
def test_a_setting_of_another_kind_gets_one_line(bad, words):
    with pytest.raises(UserError, match=words):
        SyntheticSource(**bad)
