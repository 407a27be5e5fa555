"""Foreign activations in runs: resumed, in pairs, in sweeps, and known again wherever they lie."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import saelight
from saelight.data.data_concerns import concerns
from saelight.data.datamodule import ActivationDataModule
from saelight.data.foreign.opening import open_rows
from saelight.errors import UserError
from saelight.run import run_folder
from tests.data import foreign_files
from tests.data.folders import with_sinks, write
from tests.data.foreign_files import D, N, X
from tests.support.checkpoints import assert_same
from tests.support.commands import CONFIG, saelight_
from tests.support.import_graph import packages_loaded
from tests.support.runs import StopAt, trainer
from tests.support.sweeps import SWEEP
from tests.support.sweeps import write as write_sweep


def bank() -> saelight.SAEBank:
    return saelight.SAEBank({"topk": saelight.TopK(expansion=2, k=2)}, d_in=D)


def test_stopped_and_resumed_in_another_place_it_is_the_unbroken_run(tmp_path):
    (tmp_path / "saev").mkdir()
    made = foreign_files.saev(tmp_path / "saev")
    shutil.copytree(tmp_path / "saev", tmp_path / "moved")
    unbroken = trainer(tmp_path / "unbroken", max_epochs=3)
    unbroken.fit(bank(), ActivationDataModule(made.address, batch_size=100))
    path = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConnectionAbortedError):
        trainer(tmp_path, max_epochs=3, callbacks=[StopAt(17, path)]).fit(
            bank(), ActivationDataModule(made.address, batch_size=100)
        )
    other = ActivationDataModule(f"{tmp_path}/moved@11", batch_size=100)
    with pytest.raises(UserError, match="cannot resume the data: the checkpoint has data fingerprint"):
        trainer(tmp_path, max_epochs=3).fit(bank(), other, ckpt_path=str(path))
    resumed = trainer(tmp_path, max_epochs=3)
    resumed.fit(bank(), ActivationDataModule(f"{tmp_path}/moved@23", batch_size=100), ckpt_path=str(path))
    ends = [torch.load(run_folder.checkpoint(t.folder), weights_only=True) for t in (resumed, unbroken)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "saelight", "global_step", "ActivationDataModule"):
        assert_same(*(end[key] for end in ends), key)


def test_pairs_of_two_tools(tmp_path):
    moss, lens = tmp_path / "moss", tmp_path / "lens"
    moss.mkdir(), lens.mkdir()
    foreign_files.openmoss(moss)
    foreign_files.sae_lens(lens)
    data = ActivationDataModule(str(moss), target_path=str(lens), batch_size=100, normalise="none")
    x_BD, y_BD = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert x_BD.shape == (100, D)
    assert torch.equal(x_BD, y_BD)
    with pytest.raises(UserError, match=f"inputs and targets are no pairs: .* has {N} rows, .* has 10"):
        ActivationDataModule(str(moss), target_path=str(write(tmp_path / "own", torch.zeros(10, D))))
    np.savez(tmp_path / "other.npz", x=X, tokens=np.zeros(N, int))
    with pytest.raises(UserError, match=r"not of the same tokens: .* differ in token_ids at row 0"):
        ActivationDataModule(str(moss), target_path=f"{tmp_path}/other.npz")


def test_both_hooks_of_one_file(tmp_path):
    made = foreign_files.safetensors(tmp_path)
    data = ActivationDataModule(made.address, target_path=made.address.replace("out", "in"), normalise="none")
    x_BD, y_BD = data.init_sample(50)
    assert torch.equal(x_BD, -y_BD)


def test_sweeps(tmp_path, capsys):
    np.save("x.npy", X)
    data = {"class_path": "ActivationDataModule", "init_args": {"path": "x.npy", "batch_size": 100}}
    base = {"trainer": CONFIG["trainer"], "data": data}
    trained = saelight.sweep.run([{"sae": {"class_path": "TopK", "k": k, "expansion": 2}} for k in (2, 4)], base)
    assert [(point.row["metrics"]["l0"], point.row["steps"]) for point in trained] == [(2, 12), (4, 12)]
    file = write_sweep(SWEEP, base | {"model": {"saes": {"any": {"class_path": "TopK"}}}})
    assert saelight_("sweep", "run", file, "--dry-run") == 0
    assert "small: 6 points" in capsys.readouterr().out


def test_identity_is_of_values(tmp_path):
    def known(name: str, x: np.ndarray) -> object:
        np.save(tmp_path / name, x)
        return ActivationDataModule(str(tmp_path / name), batch_size=64).identity()

    identity = known("x.npy", X)
    assert known("y.npy", X.copy()) == identity
    os.utime(tmp_path / "x.npy", (1, 1))
    assert ActivationDataModule(str(tmp_path / "x.npy"), batch_size=64).identity() == identity
    (tmp_path / "link.npy").symlink_to("x.npy")
    assert ActivationDataModule(str(tmp_path / "link.npy"), batch_size=64).identity() == identity
    Path("folder").mkdir()
    foreign_files.npy_folder(Path("folder"))
    assert open_rows("folder").fingerprint == open_rows(tmp_path / "x.npy").fingerprint
    other = X.copy()
    other[N // 2, 0] += 1
    assert known("z.npy", other) != identity
    assert known("z.npy", X.astype("f2")) != identity
    assert known("z.npy", X[:-1]) != identity


def test_rows_in_memory_are_counted(tmp_path):
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "x.npy", X)
    placed, held = tmp_path / "x.npy", foreign_files.parquet_lists(tmp_path / "p").address
    mapped, decoded = (ActivationDataModule(str(path)).describe().stream_bytes for path in (placed, held))
    assert decoded - mapped == X.nbytes


def test_large_norms_are_warned_of_and_filtered(tmp_path):
    save_file({"x": with_sinks(2000)}, tmp_path / "x.safetensors")
    path = f"{tmp_path}/x.safetensors"
    data = ActivationDataModule(path, batch_size=100, normalise="none", val_fraction=0)
    (line,) = concerns(data, data.init_sample())
    assert "16 of all 2,000 rows" in line
    assert f"`saelight shards filter {path} OUT`" in line
    assert saelight_("shards", "filter", path, str(tmp_path / "out")) == 0
    paired = ActivationDataModule(path, target_path=path, batch_size=100, normalise="none", val_fraction=0)
    (line, _) = concerns(paired, *paired.init_sample())
    assert (
        "write both into one folder with `saelight shards convert`, then `saelight shards filter FOLDER_OF_BOTH OUT`" in line
    )
    filtered = ActivationDataModule(str(tmp_path / "out"), batch_size=100, normalise="none", val_fraction=0)
    assert filtered.n_train_rows == 2000 - 16
    assert concerns(filtered, filtered.init_sample()) == []


def test_names_with_colons_and_layers_are_paths_first(tmp_path):
    for name in ("a:b.npy", "a@7.npy", "a.npy@7"):
        np.save(tmp_path / "x.npy", X)
        (tmp_path / "x.npy").rename(tmp_path / name)
    assert open_rows(tmp_path / "a:b.npy").n_rows == N
    assert open_rows(tmp_path / "a@7.npy").n_rows == N
    with pytest.raises(UserError, match="no shards at"):
        open_rows(tmp_path / "nothing@7")


def test_whose_metadata_they_are(tmp_path):
    (tmp_path / "metadata.json").write_text('{"model": "mine"}')
    np.save(tmp_path / "x.npy", X)
    assert open_rows(tmp_path).n_rows == N
    shards = write(tmp_path / "s", torch.tensor(X))
    with pytest.raises(
        UserError, match=r"s is a folder of shards, which hold one hook each; leave out what follows the path"
    ):
        open_rows(f"{shards}:x")
    (shards / "metadata.json").write_text("{}")
    with pytest.raises(UserError, match="does not say format"):
        open_rows(shards)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(UserError, match=r"only in folders in it \(s\)"):
        open_rows(tmp_path)


def test_arrays_need_no_pyarrow():
    assert not packages_loaded("data.foreign.finding") & {"pyarrow", "lightning"}


def test_the_six_lines_of_the_page(capsys):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    block, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    np.save("acts.npy", X)
    exec(block, {})
    assert saelight_("shards", "verify", "shards/mine") == 0
    assert "1,300 rows: checksums, finite values and sums hold" in capsys.readouterr().out
