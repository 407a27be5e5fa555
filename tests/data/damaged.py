"""Whatever reads a folder of shards, and how it is to refuse one."""

from pathlib import Path

import pytest

from saelight.data.datamodule import ActivationDataModule
from saelight.data.row_filter import RowFilter
from saelight.data.shard_summary import summary
from saelight.data.shards.filtering import filter_shards
from saelight.data.shards.verify import verify
from saelight.errors import UserError

METADATA, SHARD = "metadata.json", "activations-00001.safetensors"


def _filter(path):
    return filter_shards(path, Path(path).with_name("out"), RowFilter())


READERS = (verify, ActivationDataModule, summary, _filter)


def check_refused(path, message):
    """All that reads shards says `message`, in one line."""
    for reader in READERS:
        with pytest.raises(UserError, match=message) as caught:
            reader(str(path))
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 500
    assert not list(path.parent.glob("out*"))
