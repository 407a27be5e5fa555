"""Checkpoints compared bit for bit."""

from pathlib import Path
from typing import Any

import torch


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Bitwise equality of nested checkpoint state."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert a.numpy().tobytes() == b.numpy().tobytes(), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


def assert_same_state(a: Path, b: Path) -> None:
    """Weights, counters, moments, schedules and position of two checkpoints."""
    one, two = (torch.load(path, weights_only=True) for path in (a, b))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "saelight", "global_step", "SyntheticDataModule"):
        assert_same(one[key], two[key], key)
    assert_same(_position(one), _position(two), "position")


def _position(checkpoint: dict[str, Any]) -> Any:
    return checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
