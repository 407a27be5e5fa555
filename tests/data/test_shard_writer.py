"""A shard folder is whole or it does not exist."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.writer import ShardWriter
from saelight.errors import UserError
from tests.data.folders import counted, read, write

FIELDS = {"model": "test", "hook": "layer", "dtype": "float32", "d_in": 4}


def test_an_existing_folder_is_refused(tmp_path):
    path = write(tmp_path / "s", counted(10))
    with pytest.raises(UserError, match="exists; choose another folder"):
        write(path, counted(20))
    assert ShardedRows(path).n_rows == 10


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nan_is_refused_naming_the_row(tmp_path, dtype):
    x = counted(50)
    x[41, 1] = float("nan") if dtype == "float32" else 1e6  # beyond float16
    with pytest.raises(UserError, match="activation in row 41 of layer"):
        write(tmp_path / "s", x, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no rows to write"):
        write(tmp_path / "s", counted(0))
    assert list(tmp_path.iterdir()) == []


def test_columns_may_not_come_and_go(tmp_path):
    with ShardWriter(tmp_path / "s", **FIELDS) as writer:
        writer.append(counted(3), positions=torch.arange(3))
        with pytest.raises(ValueError, match="the same columns"):
            writer.append(counted(3))


def test_documents_may_not_decrease(tmp_path):
    with ShardWriter(tmp_path / "s", **FIELDS) as writer:
        writer.append(counted(3), document_ids=torch.tensor([0, 1, 1]))
        for ids, row in (([0, 1, 1], 3), ([1, 2, 1], 5)):
            with pytest.raises(UserError, match=f"document_ids decrease at row {row} of "):
                writer.append(counted(3), document_ids=torch.tensor(ids))
        writer.append(counted(1), document_ids=torch.tensor([1]))
    assert ShardedRows(tmp_path / "s").n_rows == 4


def test_what_no_writer_left_is_not_taken_over(tmp_path):
    partial = tmp_path / "s.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"s\.partial holds 'thesis\.tex', which no writer .* left there; move it away"):
        write(tmp_path / "s", counted(10))
    assert (partial / "thesis.tex").exists()
    partial.rename(tmp_path / "mine")
    partial.symlink_to("mine")
    with pytest.raises(UserError, match=r"cannot write .*s\.partial: "):
        write(tmp_path / "s", counted(10))
    assert (tmp_path / "mine" / "thesis.tex").exists()
    partial.unlink()
    write(tmp_path / "s", counted(10))


def test_a_broken_link_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "s").symlink_to("nowhere")
    with pytest.raises(UserError, match="exists; choose another folder"):
        write(tmp_path / "s", counted(10))


def test_two_writers_do_not_share_a_folder(tmp_path):
    with ShardWriter(tmp_path / "s", **FIELDS) as writer:
        with pytest.raises(UserError, match="being written by another process"), ShardWriter(tmp_path / "s", **FIELDS):
            pass
        writer.append(counted(5))
    assert ShardedRows(tmp_path / "s").n_rows == 5


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system takes root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("this system does not allow mounts")
    try:
        with pytest.raises(UserError, match=r"^disk full: cannot write .*activations-0000\d.safetensors"):
            write(mount / "s", torch.ones(100_000, 4), rows_per_shard=20_000, piece=5000)
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_file_size_limit_is_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UserError, match=r"^file size limit reached: cannot write"):
            write(tmp_path / "s", torch.ones(10_000, 4), rows_per_shard=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


_ENDLESS = """
import sys, torch
from saelight.data.shards.writer import ShardWriter
with ShardWriter(sys.argv[1], model="m", hook="h", dtype="float32", d_in=4, rows_per_shard=1000) as writer:
    while True:
        writer.append(torch.ones(500, 4))
        print(flush=True)
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_killed_writers_leave_no_folder_and_no_obstacle(tmp_path, kill):
    out = tmp_path / "s"
    child = subprocess.Popen([sys.executable, "-c", _ENDLESS, out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for _ in range(5):
        child.stdout.readline()
    child.send_signal(kill)
    deadline = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < deadline:
        child.stdout.readline()
    child.stdout.close()
    assert child.wait() != 0
    assert not out.exists()
    stale = out.with_name("s.partial")
    assert stale.exists() == (kill == signal.SIGKILL)
    write(out, counted(30))
    assert ShardedRows(out).n_rows == 30
    assert not stale.exists()


def test_arrays_are_rows_too(tmp_path):
    x = np.arange(24.0).reshape(6, 4)
    frozen, swapped, turned = x.copy(), x.astype(">f8"), np.asfortranarray(x)
    frozen.setflags(write=False)
    with ShardWriter(tmp_path / "s", **FIELDS) as writer:
        for rows in (frozen, swapped, turned):
            writer.append(rows, token_ids=np.arange(6))
    kept, columns = read(tmp_path / "s")
    assert np.array_equal(kept.numpy(), np.concatenate([x, x, x]))
    assert columns["token_ids"].tolist() == [*range(6)] * 3


@pytest.mark.parametrize(
    ("rows", "columns", "line"),
    [
        (torch.zeros(3, 1), {}, r"rows must be floats of shape \(N, 4\), these are torch.float32 of \(3, 1\)"),
        (torch.zeros(4), {}, r"these are torch.float32 of \(4,\)"),
        (torch.zeros(3, 4).long(), {}, "these are torch.int64"),
        (
            torch.zeros(3, 4),
            {"tokens": torch.zeros(3)},
            "shards have no column 'tokens'; they may have token_ids, positions",
        ),
    ],
)
def test_what_are_no_rows(rows, columns, line, tmp_path):
    with pytest.raises(UserError, match=line), ShardWriter(tmp_path / "s", **FIELDS) as writer:
        writer.append(rows, **columns)
    assert not list(tmp_path.iterdir())


def test_what_are_no_shards(tmp_path):
    for dtype, d_in in (("int8", 4), ("float32", 0)):
        with pytest.raises(UserError, match=f"rows of at least one number, not '{dtype}' rows of {d_in}"):
            ShardWriter(tmp_path / "s", **FIELDS | {"dtype": dtype, "d_in": d_in})
