"""Shards in a bucket: a server of S3's own protocol on loopback, in a process of its own, and s3fs."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

import saelight
from saelight.data.datamodule import ActivationDataModule
from saelight.data.shards.folder_part import Part
from saelight.data.shards.part_writer import PartWriter
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from tests.data.folders import read, write
from tests.support.commands import CONFIG, changed, refused, saelight_
from tests.support.commands import write as write_config

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytestmark = pytest.mark.slow
X = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What it prints of each request would fill a pipe.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], env=env, **quiet)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/moto-api"):
            break
        time.sleep(0.1)
    yield url
    child.terminate()
    child.wait()


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket of its own. The server and the keys are told as boto's users tell them."""
    for key, value in {
        "ENDPOINT_URL": server,
        "ACCESS_KEY_ID": "me",
        "SECRET_ACCESS_KEY": "x",
        "REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    import s3fs

    name = f"b{uuid.uuid4().hex[:12]}"
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    fs.mkdir(name)
    return f"s3://{name}"


def batches(path, **settings):
    data = ActivationDataModule(path=str(path), batch_size=300, seed=3, **settings)
    train = iter(data.train_dataloader())
    return [*(next(train).clone() for _ in range(len(data.train_dataloader()))), *data.val_dataloader()]


def test_written_there_and_read_from_there(bucket, tmp_path, capsys):
    here, there = write(tmp_path / "s", X, document=40), f"{bucket}/deep/s"
    write(there, X, document=40)
    assert ShardedRows(there).metadata == ShardedRows(here).metadata
    assert all(torch.equal(a, b) for a, b in zip(batches(here), batches(there), strict=True))
    assert verify(there).endswith("50 shards, 5,000 rows: checksums, finite values and sums hold")
    assert saelight_("shards", "info", there) == 0
    assert "5,000 × 16 float32" in capsys.readouterr().out
    assert "exists; choose another folder" in refused(capsys, "shards", "filter", there, there)


def test_large_files_go_in_several_parts(bucket):
    x = torch.randn(30_000, 1024, generator=torch.Generator().manual_seed(1))  # 123 MB: s3fs cuts from 100 MB on
    write(f"{bucket}/large", x, rows_per_shard=30_000, piece=10_000)
    assert torch.equal(read(f"{bucket}/large")[0], x)
    import s3fs

    assert "-" in s3fs.S3FileSystem().info(f"{bucket}/large/activations-00000.safetensors")["ETag"]


def test_what_fails_leaves_no_shards_and_no_files(bucket):
    x = X.clone()
    x[4990] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite activation in row 4990"):
        write(f"{bucket}/s", x)
    import s3fs

    assert not s3fs.S3FileSystem().exists(f"{bucket}/s")
    write(f"{bucket}/s", X)
    assert torch.equal(read(f"{bucket}/s")[0], X)


def test_what_was_left_by_a_killed_writer_is_written_over(bucket, tmp_path):
    import s3fs

    fs = s3fs.S3FileSystem()
    for number in (0, 77):
        fs.pipe_file(f"{bucket}/s/activations-{number:05d}.safetensors", b"half")
    write(f"{bucket}/s", X)
    assert len(fs.ls(f"{bucket}/s", refresh=True)) == 51
    fs.pipe_file(f"{bucket}/mine/thesis.tex", b"")
    with pytest.raises(UserError, match=r"mine holds 'thesis.tex', which no writer of shards left there"):
        write(f"{bucket}/mine", X)


def test_convert_filter_and_parts(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X.numpy())
    assert saelight_("shards", "convert", "x.npy", f"{bucket}/converted") == 0
    assert saelight_("shards", "filter", f"{bucket}/converted", f"{bucket}/filtered", "--skip_positions", "0") == 0
    assert torch.equal(read(f"{bucket}/filtered")[0], X)
    for number in (2, 1, 3):
        with PartWriter(f"{bucket}/p", Part(number, 3), model="m", hook="h", dtype="float32", d_in=16) as writer:
            writer.append(Part(number, 3).share(X))
    assert saelight_("shards", "merge", f"{bucket}/p") == 0
    assert torch.equal(read(f"{bucket}/p")[0], X)


def fit(name, path, *more, code=0):
    """Train a TopK and a ReLU; the bytes of their exported weights."""
    data = {"path": path, "batch_size": 250, "max_samples": 4000, "val_fraction": 0.1}
    data |= {"cache_dir": "cache", "cache_gb": 0.0002} if path.startswith("s3") else {}
    config = changed(
        trainer__max_epochs=2, trainer__name=name, data__class_path="ActivationDataModule", data__init_args=data
    )
    assert saelight_("fit", "--config", write_config(config), *more) == code
    return {path.parent.name: path.read_bytes() for path in Path("runs", name, "saes").glob("*/*.safetensors")}


def test_fit_there_equals_fit_here_and_resumes(bucket):
    write(f"{bucket}/s", X, document=40)
    write(Path("s"), X, document=40)
    here = fit("here", "s")
    assert len(here) == 2
    assert fit("there", f"{bucket}/s") == here
    assert 0 < sum(path.stat().st_size for path in Path("cache").rglob("*.range")) <= 220_000
    # Stopped in the second epoch, and gone on with.
    stop = '[{"class_path": "tests.support.callbacks.Terminate", "init_args": {"step": 21}}]'
    assert fit("stopped", f"{bucket}/s", f"--trainer.callbacks={stop}", code=143) != here
    assert fit("stopped", f"{bucket}/s", "--ckpt_path=last") == here


def test_a_sweep_there_is_the_sweep_here(bucket):
    write(f"{bucket}/s", X, document=40)
    write(Path("s"), X, document=40)
    points = [{"sae": {"class_path": "TopK", "k": k, "expansion": 2}} for k in (2, 4)]
    measured = []
    for path in ("s", f"{bucket}/s"):
        data = {"class_path": "ActivationDataModule", "init_args": {"path": path, "batch_size": 500}}
        trained = saelight.sweep.run(points, {"trainer": CONFIG["trainer"], "data": data})
        measured.append([(point.row["steps"], point.row["metrics"]["l0"], point.row["metrics"]["fvu"]) for point in trained])
    assert measured[0] == measured[1]


def test_no_bucket_and_no_server(bucket, monkeypatch, capsys):
    import s3fs

    assert "no shards at s3://none-such-bucket-4711/s: metadata.json is missing" in refused(
        capsys, "shards", "info", "s3://none-such-bucket-4711/s"
    )
    monkeypatch.setenv("SAELIGHT_PATIENCE", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    line = refused(capsys, "shards", "info", "s3://elsewhere-4711/s")
    assert "cannot read s3://elsewhere-4711/s/metadata.json" in line
    assert "check the address and the connection" in line
