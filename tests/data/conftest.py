"""Shards to damage, and an end to whatever waits for them."""

import shutil
import signal
from pathlib import Path

import pytest
import torch

from saelight.data.row_filter import RowFilter
from saelight.data.shards.filtering import filter_shards
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from tests.data.folders import counted, edit, write


@pytest.fixture
def nothing_waits():
    """A reader that waits for the other end of a pipe fails, and does not hang the tests."""

    def late(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 30)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    path = write(folder / "s", counted(250), document=10, token_ids=torch.arange(250) % 50, positions=torch.arange(250) % 10)
    filter_shards(path, folder / "filtered", RowFilter(drop_tokens=[3]))
    edit(path, dropped=ShardedRows(folder / "filtered").metadata["dropped"])
    assert "250 rows" in verify(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    """250 rows in three shards, with all columns and a report of rows that were dropped."""
    return Path(shutil.copytree(made, tmp_path / "s"))
