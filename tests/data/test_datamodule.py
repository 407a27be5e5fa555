"""The data module over shards: normalisation, the validation split, init samples, and what it refuses."""

import math

import pytest
import torch

from saelight.data.activation_source import held_out_from
from saelight.data.datamodule import ActivationDataModule
from saelight.data.shards.reader import ShardedRows
from saelight.data.stream.loaders import SequentialStream
from saelight.errors import UserError
from tests.data.folders import counted, write


def numbers(loader):
    return sorted(int(i) - 1 for batch in loader for i in batch[:, 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1000 numbered rows in documents of 30."""
    return str(write(tmp_path_factory.mktemp("data") / "s", counted(1000), document=30))


def test_known_after_init(folder):
    data = ActivationDataModule(folder, batch_size=64)
    assert data.d_in == 4
    x = counted(1000).double()
    assert data.normalisation.kind == "standard"
    assert torch.equal(data.normalisation.mean_D, x.mean(0))
    assert data.normalisation.scale == pytest.approx(math.sqrt(4 / (x - x.mean(0)).square().sum(1).mean()), rel=1e-12)
    assert data.features is None
    assert data.source["model"] == "test"
    assert data.fingerprint == ShardedRows(folder).fingerprint


@pytest.mark.parametrize(("normalise", "mean"), [("standard", 0.0), ("rms", math.sqrt(3) / 2)])
def test_rows_have_mean_square_norm_d_in(folder, normalise, mean):
    data = ActivationDataModule(folder, batch_size=100, val_fraction=0, normalise=normalise)
    x = torch.cat([data.on_after_batch_transfer(b, 0) for b in data.predict_dataloader()])
    assert x.dtype == torch.float32
    assert x.square().sum(1).mean() == pytest.approx(4, rel=1e-5)
    assert x.mean() == pytest.approx(mean, abs=1e-3)


def test_none_leaves_rows_as_stored(folder):
    plain = ActivationDataModule(folder, batch_size=100, normalise="none")
    assert (plain.normalisation.scale, plain.normalisation.mean_D) == (1.0, None)
    assert torch.equal(plain.on_after_batch_transfer(counted(5), 0), counted(5))


def test_stored_halves_become_float32(tmp_path):
    path = write(tmp_path / "s", counted(60), dtype="bfloat16")
    data = ActivationDataModule(str(path), batch_size=20)
    (batch, *_) = data.train_dataloader()
    assert batch.dtype == torch.bfloat16
    assert data.on_after_batch_transfer(batch, 0).dtype == torch.float32


def test_the_last_whole_documents_are_held_out(folder):
    data = ActivationDataModule(folder, batch_size=50, val_fraction=0.1)
    assert (data.n_train_rows, data.n_val_rows) == (900, 100)  # 900 = 30 documents, just where the last tenth starts
    data = ActivationDataModule(folder, batch_size=50, val_fraction=0.15)
    assert (data.n_train_rows, data.n_val_rows) == (840, 160)
    train = set().union(*(numbers(data.train_dataloader()) for _ in range(2)))
    assert train <= set(range(840))
    assert numbers(data.val_dataloader()) == numbers(data.test_dataloader()) == list(range(840, 1000))


@pytest.mark.parametrize(
    ("document", "fraction", "first"),
    [
        (100, 0.05, 900),  # the last document is longer than the fraction: all of it
        (7, 0.5, 497),
        (7, 0.498, 504),
        (1, 0.02, 980),
        (None, 0.02, 980),
    ],
)
def test_where_validation_starts(tmp_path, document, fraction, first):
    rows = ShardedRows(write(tmp_path / "s", counted(1000), document=document))
    assert held_out_from(rows, fraction) == first


def test_one_document_cannot_be_held_out(tmp_path):
    path = str(write(tmp_path / "s", counted(200), document=200))
    with pytest.raises(UserError, match=r"single document.*val_path"):
        ActivationDataModule(path, batch_size=10)
    data = ActivationDataModule(path, batch_size=10, val_fraction=0)
    assert (data.n_train_rows, data.n_val_rows, data.val_dataloader()) == (200, 0, [])


def test_val_path(tmp_path, folder):
    other = str(write(tmp_path / "v", counted(70)))
    data = ActivationDataModule(folder, batch_size=50, val_path=other, val_batch_size=32)
    assert (data.n_train_rows, data.n_val_rows) == (1000, 70)
    assert [len(b) for b in data.val_dataloader()] == [32, 32, 6]
    with pytest.raises(UserError, match=r"has width 5, data.path has 4"):
        ActivationDataModule(folder, val_path=str(write(tmp_path / "w", counted(70, 5))))


def test_max_samples_is_exact_and_seeded(tmp_path):
    path = str(write(tmp_path / "s", counted(5000), rows_per_shard=700))
    chosen = [ActivationDataModule(path, batch_size=100, max_samples=2000, seed=seed) for seed in (0, 0, 1)]
    assert [data.n_train_rows for data in chosen] == [2000] * 3
    seen = [numbers(data.train_dataloader()) for data in chosen]
    assert len(set(seen[0])) == 2000
    assert seen[0] == seen[1] != seen[2]
    assert ActivationDataModule(path, batch_size=100, max_samples=10**9, val_fraction=0).n_train_rows == 5000


def test_init_samples_are_training_rows_and_the_same_everywhere(tmp_path):
    path = str(write(tmp_path / "s", counted(5000), rows_per_shard=700))
    data = ActivationDataModule(path, batch_size=100, normalise="none", max_samples=3000)
    sample = data.init_sample(700)
    assert sample.shape == (700, 4)
    assert set(numbers([sample])) <= set(numbers(data.train_dataloader()) + numbers(data.train_dataloader()))
    assert torch.equal(sample, ActivationDataModule(path, normalise="none", max_samples=3000).init_sample(700))
    assert data.init_sample().shape == (3000, 4)
    scaled = ActivationDataModule(path, max_samples=3000)
    assert torch.equal(scaled.init_sample(700), scaled.normalisation(sample))


def test_predict_reads_all_rows_in_order(folder):
    data = ActivationDataModule(folder, batch_size=300, predict_rows=700)
    loader = data.predict_dataloader()
    assert isinstance(loader, SequentialStream)
    assert torch.equal(torch.cat(list(loader)), counted(700))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\)"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"val_fraction": float("nan")}, "val_fraction"),
        ({"max_samples": 0}, "max_samples"),
        ({"seed": -1}, "seed"),
        ({"normalise": "std"}, "normalise"),
        ({"predict_rows": 0}, "predict_rows"),
        ({"val_path": "nowhere"}, "no shards at nowhere"),
        ({"val_batch_size": -3}, "val_batch_size"),
    ],
)
def test_bad_settings_get_one_line(folder, bad, words):
    with pytest.raises(UserError, match=words) as caught:
        ActivationDataModule(folder, **bad)
    assert "\n" not in str(caught.value)


def test_too_few_rows_for_a_batch(folder):
    with pytest.raises(UserError, match=r"do not fill one batch of 4096; lower data\.batch_size"):
        ActivationDataModule(folder).train_dataloader()


@pytest.mark.parametrize(
    ("x", "normalise", "words"),
    [
        (torch.zeros(100, 4), "standard", "normalise standard is impossible: the activations' mean ‖x‖² is 0"),
        (torch.zeros(100, 4), "rms", "normalise rms is impossible"),
        (torch.full((100, 4), 0.3), "standard", "normalise standard is impossible: the activations are all the same row"),
    ],
)
def test_rows_that_cannot_be_normalised(tmp_path, x, normalise, words):
    path = str(write(tmp_path / "s", x))
    with pytest.raises(UserError, match=words):
        ActivationDataModule(path, normalise=normalise)
    assert ActivationDataModule(path, normalise="none").normalisation.scale == 1.0
