"""Commands, and the small config that most of them are given."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from saelight.cli.main import main

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
    "model": {
        "saes": {
            "relu": {"class_path": "ReLU", "init_args": {"expansion": 2}},
            "topk": {"class_path": "TopK", "init_args": {"expansion": 2, "k": 4}},
        }
    },
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"d_in": 8, "n_features": 16, "mean_l0": 2, "rows": 1000, "val_rows": 100, "batch_size": 100},
    },
}


def saelight_(*args: str) -> int:
    """One command, in this process; its exit code."""
    try:
        return main(args)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0


def write(config: dict[str, Any] | str, name: str = "cfg.yaml") -> str:
    """Write a config into the working folder; its name."""
    Path(name).write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return name


def changed(config: dict[str, Any] = CONFIG, /, **changes: Any) -> dict[str, Any]:
    """A copy with dotted keys (dots as __) set."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = config
        for part in path:
            inner = inner[part]
        inner[last] = value
    return config


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line of a command that is refused."""
    assert saelight_(*args) not in (0, 130)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("saelight: error: ")
    return lines[0]
