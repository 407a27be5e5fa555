"""A source of one's own, the class that docs/data.md shows: in Python, from the command line, resumed, and described."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from saelight.cli.main import main
from saelight.data import sources
from saelight.data.stream.order import BLOCK, WINDOW
from saelight.errors import UserError
from tests.support.sources import VAL, D, N, write_own_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The page's class, from a module that Python finds, in a folder with its data."""
    write_own_source(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("own_source").ArrayDataModule
    del sys.modules["own_source"]


def test_streams_and_normalises_what_open_gives(own):
    data = own("x.npy", batch_size=100)
    assert (data.d_in, data.n_train_rows, data.n_val_rows) == (D, N - VAL, VAL)
    x = np.load("x.npy")
    unit = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
    assert torch.equal(torch.cat(list(data.val_dataloader())), unit[-VAL:])
    (first, *_) = data.train_dataloader()
    assert all((unit[:-VAL] == row).all(1).any() for row in first)
    # The source does not know its sums: normalisation reads training rows, here all of them.
    centred = unit[:-VAL].double() - unit[:-VAL].double().mean(0)
    normalised = data.on_after_batch_transfer(unit[:-VAL], 0).double()
    torch.testing.assert_close(normalised, centred * (D / centred.square().sum(1).mean()).sqrt(), rtol=0, atol=1e-6)
    assert "batch_size must be at least 1" in refused(own, "x.npy", batch_size=0)
    assert "data.path cannot be read" in refused(own, "y.npy")


def refused(own, *args, **settings) -> str:
    with pytest.raises(UserError) as caught:
        own(*args, **settings)
    return str(caught.value)


def test_resumes_at_any_batch(own):
    whole = own("x.npy", batch_size=100)
    stream = whole.train_dataloader()
    batches = [batch for _ in range(2) for batch in stream]
    assert len(batches) == 2 * (N - VAL) // 100
    for at in (1, 12, 17):
        half = own("x.npy", batch_size=100)
        half.load_state_dict(whole.state_dict() | dict(zip(("epoch", "batch"), divmod(at, len(stream)), strict=True)))
        rest = half.train_dataloader()
        assert all(torch.equal(a, b) for a, b in zip(rest, batches[at : at // len(stream) * len(stream) + 12], strict=True))


def test_describes_itself(own):
    assert sources.find("own_source.ArrayDataModule") is own
    description = own("x.npy", batch_size=100, max_samples=700).describe()
    assert description[:5] == (D, None, 700, 100, 4 * D)
    assert 2 * 700 * 4 * D <= description.stream_bytes < 3 * 700 * 4 * D < 4 * D * WINDOW * BLOCK


def test_its_identity_is_what_can_change_weights(own, tmp_path):
    identity = own("x.npy").identity()
    (tmp_path / "moved.npy").write_bytes((tmp_path / "x.npy").read_bytes())
    assert own("moved.npy", val_batch_size=7, predict_rows=5, batch_size=4096).identity() == identity
    assert yaml.safe_load(yaml.safe_dump(identity)) == identity
    np.save("other.npy", np.load("x.npy")[::-1])
    others = [own("other.npy"), own("x.npy", seed=1), own("x.npy", batch_size=4), own("x.npy", val_rows=101)]
    assert all(other.identity() != identity for other in others)


def test_trains_and_resumes_from_the_command_line(own, tmp_path, capsys):
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"relu": {"class_path": "ReLU", "init_args": {"expansion": 2}}}},
        "data": {"class_path": "own_source.ArrayDataModule", "init_args": {"path": "x.npy", "batch_size": 100}},
    }
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "saelight", "fit", "--config", "cfg.yaml", "--data.max_samples", "1000"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True)
    assert position() == (1, 0)
    again = ["fit", "--config", "runs/cfg/config.yaml", "--ckpt_path", "last", "--trainer.max_epochs"]
    with pytest.warns(UserWarning, match="begun for 10 optimizer steps"):
        assert main([*again, "3"]) == 0
    assert position() == (3, 0)
    assert main([*again, "4", "--data.batch_size", "50"]) == 1
    assert "cannot resume the data: the checkpoint has batch size 100" in capsys.readouterr().err


def position() -> tuple[int, int]:
    state = torch.load("runs/cfg/checkpoints/last.ckpt", weights_only=True)["ArrayDataModule"]
    assert state["data_fingerprint"] == hashlib.sha256(Path("x.npy").read_bytes()).hexdigest()
    return state["epoch"], state["batch"]
