"""Activations of other tools, read where they lie: every layout gives the same rows, and trains as own shards do."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from saelight.data.datamodule import ActivationDataModule
from saelight.data.foreign.converting import convert
from saelight.data.foreign.opening import open_rows
from tests.data.folders import command, read, write
from tests.data.foreign_files import COLUMNS, CONTEXT, LAYOUTS, D, N, X
from tests.support.commands import CONFIG, changed, saelight_


@pytest.fixture(scope="module", params=LAYOUTS)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "data"
    folder.mkdir()
    return LAYOUTS[request.param](folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The same rows as own shards."""
    return write(tmp_path_factory.mktemp("own") / "s", torch.tensor(X))


def test_rows_and_columns(made):
    before = snapshot(made.address)
    rows = open_rows(made.address)
    assert (rows.n_rows, rows.d_in, rows.dtype, tuple(rows.columns)) == (N, D, torch.float32, made.columns)
    for start, n in ((0, N), (37, 500), (N - 1, 1), (511, 2)):
        rows.will_need(start, n)
        x_ND = torch.empty(n, D)
        rows.read(start, x_ND)
        assert np.array_equal(x_ND.numpy(), X[start : start + n])
        for name in made.columns:
            assert np.array_equal(rows.column(name, start, n).numpy(), COLUMNS[name][start : start + n])
    again = pickle.loads(pickle.dumps(rows))
    again.read(3, x_ND := torch.empty(4, D))
    assert np.array_equal(x_ND.numpy(), X[3:7])
    assert snapshot(made.address) == before


def snapshot(address: str) -> dict[str, int]:
    """When each file in and beside the data was written."""
    beside = Path(address.rpartition("/data")[0])
    return {str(path): path.stat().st_mtime_ns for path in sorted(beside.rglob("*"))}


def test_batches_are_those_of_own_shards(made, own):
    settings = {"batch_size": 64, "seed": 3, "max_samples": 900, "val_fraction": 0}
    theirs, ours = ActivationDataModule(made.address, **settings), ActivationDataModule(str(own), **settings)
    assert all(map(torch.equal, theirs.train_dataloader(), ours.train_dataloader()))
    assert len(theirs.train_dataloader()) == len(ours.train_dataloader()) == 14
    assert theirs.fingerprint == ActivationDataModule(made.address).fingerprint
    # Theirs are sums of all rows too: a sample of 65,536 is more than there are.
    torch.testing.assert_close(theirs.normalisation.mean_D, ours.normalisation.mean_D, atol=1e-12, rtol=0)


def test_the_split_is_at_a_document_where_there_are_any(made):
    data = ActivationDataModule(made.address, val_fraction=0.013)
    assert data.n_val_rows == (CONTEXT if "document_ids" in made.columns else 17)


def test_converted_rows_are_the_same(made, tmp_path):
    line = convert(made.address, tmp_path / "out")
    assert line.startswith(f"{N:,} rows × {D} of {made.address} in ")
    x_ND, columns = read(tmp_path / "out")
    assert np.array_equal(x_ND.numpy(), X)
    assert set(columns) == {*made.columns, "norms"}
    assert all(np.array_equal(columns[name].numpy(), COLUMNS[name]) for name in made.columns)


def test_commands_on_them(made):
    assert f"{N:,} × {D} float32" in command("info", made.address)
    assert f"{N:,} rows: all values are finite" in command("verify", made.address)
    assert open_rows(made.address).where(N - 1).startswith(made.address.split("@")[0].split(":")[0])


DTYPES = {"<f2": torch.float16, ">f2": torch.float16, "<f4": torch.float32, ">f4": torch.float32, "<f8": torch.float32}


@pytest.mark.parametrize("stored", DTYPES)
def test_dtypes_of_numpy(stored, tmp_path):
    np.save(tmp_path / "x.npy", X.astype(stored))
    assert_read(tmp_path / "x.npy", torch.tensor(X).to(DTYPES[stored]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtypes_of_tensors(dtype, tmp_path):
    save_file({"x": torch.tensor(X).to(dtype)}, tmp_path / "x.safetensors")
    assert_read(tmp_path / "x.safetensors", torch.tensor(X).to(min(dtype, torch.float32, key=lambda d: d.itemsize)))


def assert_read(path: Path, wanted: torch.Tensor) -> None:
    """All rows are the wanted ones, in their dtype, in memory and in shards."""
    rows = open_rows(path)
    rows.read(0, x_ND := torch.empty(rows.n_rows, rows.d_in, dtype=rows.dtype))
    assert rows.dtype == wanted.dtype
    assert torch.equal(x_ND, wanted)
    convert(path, path.parent / "out")
    assert torch.equal(read(path.parent / "out")[0], wanted)


@pytest.mark.slow
def test_every_kind_is_trained_on(made, tmp_path):
    settings = changed(
        trainer__name="run",
        model__saes={"topk": CONFIG["model"]["saes"]["topk"]},
        data={"class_path": "ActivationDataModule", "init_args": {"path": made.address, "batch_size": 100}},
    )
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(settings))
    assert saelight_("fit", "--config", "cfg.yaml") == 0
    weights = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
