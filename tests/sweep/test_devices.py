"""The devices of a machine, asked of a child: the process that asks keeps clear of CUDA."""

import os

import pytest
import torch

from saelight.errors import UserError
from saelight.sweep.execute import devices
from saelight.sweep.execute.ask_accelerator import ask

TORCH = """
from types import SimpleNamespace


class cuda:
    device_count = staticmethod(lambda: 2)

    def get_device_properties(i):
        {what}
"""
KNOWN = 'return SimpleNamespace(name=f"Big GPU {i}", total_memory=(i + 1) * 10**9)'


@pytest.fixture
def childs_torch(tmp_path, monkeypatch):
    """Two CUDA devices, as far as a child's torch knows."""
    path = os.environ["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), path]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return lambda what: (tmp_path / "torch.py").write_text(TORCH.format(what=what))


def test_a_child_tells_names_and_memory(childs_torch):
    childs_torch(KNOWN)
    found = devices.find()
    gpus = [devices.Device("cuda:0", "Big GPU 0", 10**9), devices.Device("cuda:1", "Big GPU 1", 2 * 10**9)]
    assert found[:2] == gpus
    assert found[-1].name == "cpu"
    assert not torch.cuda.is_initialized()


def test_a_driver_that_fails_is_one_line(childs_torch):
    childs_torch('raise RuntimeError("driver too old")')
    with pytest.raises(UserError, match=r"^CUDA does not answer here \(RuntimeError: driver too old\): repair it, or hide "):
        devices.find()


@pytest.mark.slow
def test_the_child_is_asked_with_torch_itself():
    assert ask("devices") == [list(device) for device in devices.find() if device.name.startswith("cuda")]
