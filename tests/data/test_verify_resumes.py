"""A long check of shards that was interrupted goes on where it was."""

import pytest
import torch

from saelight.data.shards import verified
from saelight.data.shards import verify as verifying
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from tests.data.folders import poison, write


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """The shards that checks looked at; a check is interrupted at shard `checked.stop`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "SECONDS", 0.0)
    check = verifying._check

    class Looked(list):
        stop = None

    looked = Looked()

    def noted(rows, number, first, read):
        if number == looked.stop:
            raise KeyboardInterrupt
        looked.append(number)
        return check(rows, number, first, read)

    monkeypatch.setattr(verifying, "_check", noted)
    return looked


def test_it_goes_on_where_it_was(checked, tmp_path):
    path = write(tmp_path / "s", torch.randn(1000, 4), document=7)
    checked.stop = 6
    with pytest.raises(KeyboardInterrupt):
        verify(path)
    checked.clear()
    checked.stop = None
    assert verify(path).endswith("10 shards (6 of them before), 1,000 rows: checksums, finite values and sums hold")
    assert sorted(checked) == [6, 7, 8, 9]
    assert not [*(tmp_path / "cache").rglob("*.json")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "s"]
    assert "10 shards, 1,000 rows" in verify(path)


def test_files_that_changed_since_are_looked_at_again(checked, tmp_path):
    path = write(tmp_path / "s", torch.randn(1000, 4))
    checked.stop = 6
    with pytest.raises(KeyboardInterrupt):
        verify(path)
    checked.clear()
    checked.stop = None
    poison(path, 2, 5)
    with pytest.raises(UserError, match=r"activations-00002.safetensors is damaged: sha256"):
        verify(path)
    assert 0 in checked


def test_damaged_notes_are_none(checked, tmp_path):
    path = write(tmp_path / "s", torch.randn(300, 4))
    checked.stop = 2
    with pytest.raises(KeyboardInterrupt):
        verify(path)
    (note,) = (tmp_path / "cache").rglob("*.json")
    checked.stop = None
    for text in ("", "[]", "{}", '{"shards": 2, "sum": [1], "files": "x"}'):
        note.write_text(text)
        assert "3 shards, 300 rows" in verify(path)
