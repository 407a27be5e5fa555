"""What cannot be opened is said in one line, by whatever reads or writes shards, and nothing waits."""

import contextlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
import torch

from saelight.data.row_filter import RowFilter
from saelight.data.shards.filtering import filter_shards
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.writer import ShardWriter
from saelight.errors import UserError
from tests.data.damaged import METADATA, READERS, SHARD, check_refused
from tests.data.folders import counted, write
from tests.support.commands import refused

pytestmark = pytest.mark.usefixtures("nothing_waits")


# --- what is no file


def _socket(place):
    folder = os.open(place.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(f"/proc/self/fd/{folder}/{place.name}")  # a socket's path may have 108 characters
    os.close(folder)


IMPOSTORS = {
    "folder": (Path.mkdir, "is a folder where a file belongs"),
    "pipe": (os.mkfifo, "is a named pipe where a file belongs"),
    "socket": (_socket, "is a socket where a file belongs"),
    "device": (lambda place: place.symlink_to("/dev/zero"), "is a device where a file belongs"),
    "loop": (lambda place: place.symlink_to(place), "its symbolic link leads back to itself"),
    "nothing": (lambda place: place.symlink_to("nowhere"), "is missing from"),
}


@pytest.mark.parametrize("name", [METADATA, SHARD])
@pytest.mark.parametrize("kind", IMPOSTORS)
def test_something_else_in_a_files_place(path, name, kind):
    (path / name).unlink()
    make, message = IMPOSTORS[kind]
    make(path / name)
    check_refused(path, f"{name}.*{message}|{name}: {message}|{name} {message}")


def test_something_else_in_the_folders_place(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    lines = {
        "none": "no shards at .*none: there is no such folder; make them",
        "file": "no shards at .*file: it is a file; point to the folder",
        "file/inside": "inside is missing from .*file",
        "pipe": "no shards at .*pipe: it is a named pipe",
        "loop": "cannot read .*loop: its symbolic link leads back to itself",
        "a" * 300: "cannot read .*: File name too long",
        "a\0": "cannot read .*: embedded null byte",
    }
    for name, message in lines.items():
        check_refused(tmp_path / name, message)


def test_a_file_that_becomes_a_pipe_after_it_was_checked(tmp_path):
    path = write(tmp_path / "s", counted(250))
    rows = ShardedRows(path)
    (path / SHARD).unlink()
    os.mkfifo(path / SHARD)
    with pytest.raises(UserError, match="is a named pipe"):
        rows.read(0, torch.empty(250, 4))


# --- rights


@contextlib.contextmanager
def no_privileges():
    """As a user who may not read everything, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("this root may not become another user")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public(made):
    """A copy of the shards in a folder that all users reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(made, Path(folder) / "s"))
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o755)


DENIED = {
    "a shard": (SHARD, f"cannot read .*{SHARD}: permission denied; ask its owner"),
    "the metadata": (METADATA, "cannot read .*metadata.json: permission denied"),
    "the folder": ("", "cannot read .*s/metadata.json: permission denied"),
    "the folder above": ("..", "cannot read .*s: permission denied"),
}


@pytest.mark.parametrize("what", DENIED)
def test_permission_denied(public, what):
    name, message = DENIED[what]
    with no_privileges():
        assert ShardedRows(public).n_rows == 250
    (public / name).resolve().chmod(0)
    with no_privileges():
        for reader in READERS:
            with pytest.raises(UserError, match=message) as caught:
                reader(str(public))
            assert len(str(caught.value).splitlines()) == 1


def test_a_hook_that_may_not_be_read_is_not_left_out(public):
    both = public.parent
    shutil.copytree(public, both / "t")
    (both / "t").chmod(0)
    with no_privileges(), pytest.raises(UserError, match=r"cannot read .*t/metadata\.json: permission denied"):
        filter_shards(both, both.with_name("never"), RowFilter())
    (both / "t").chmod(0o755)
    both.chmod(0o711)
    with no_privileges(), pytest.raises(UserError, match=r"cannot read .*: permission denied"):
        filter_shards(both, both.with_name("never"), RowFilter())


def test_a_folder_that_may_not_be_written(public, capsys):
    closed = public.parent / "closed"
    closed.mkdir(mode=0o700)
    with no_privileges():
        for out in (public.parent / "out", closed / "out", Path("/proc/out"), public / METADATA / "out"):
            line = refused(capsys, "shards", "filter", str(public), str(out))
            assert re.search(f"cannot write {out}.*; choose another folder", line)
            with (
                pytest.raises(UserError, match=f"cannot write {out}.*: .*; choose another folder"),
                ShardWriter(out, model="m", hook="h", dtype="float32", d_in=4),
            ):
                pass
