"""Sweep files for the tests: small, and on synthetic rows."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from tests.support.commands import changed

BASE = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
    "model": {"saes": {"any": {"class_path": "TopK"}}},
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"d_in": 8, "n_features": 16, "mean_l0": 2, "rows": 2000, "val_rows": 100, "batch_size": 100},
    },
}
LONG = changed(BASE, trainer__val_check_interval=1000, data__init_args__rows=200_000, data__init_args__val_rows=500)
"""Long enough to be stopped on its way."""
SWEEP = {
    "name": "small",
    "base": "base.yaml",
    "parameters": {"sae.lr": {"values": [1e-3, 3e-3]}},
    "cases": [
        {"name": "topk", "parameters": {"sae.class_path": {"value": "TopK"}, "sae.k": {"values": [2, 4]}}},
        {"name": "relu", "parameters": {"sae.class_path": {"value": "ReLU"}}},
    ],
}
"""Six points."""


def write(sweep: dict[str, Any] | str | None = None, base: dict[str, Any] | None = None, name: str = "sweep.yaml") -> str:
    """Write a sweep file and its base into the working folder; the sweep file's name."""
    Path("base.yaml").write_text(yaml.safe_dump(BASE if base is None else base))
    Path(name).write_text(sweep if isinstance(sweep, str) else yaml.safe_dump(sweep or SWEEP, sort_keys=False))
    return name


def rows(folder: str) -> dict[str, dict[str, Any]]:
    """The results of a sweep's folder, by point."""
    return {row["name"]: row for row in json.loads(Path(folder, "results.json").read_text())}


def weights(folder: str) -> dict[str, dict[str, torch.Tensor]]:
    """The exported SAEs of a sweep's folder."""
    return {path.parent.name: load_file(path) for path in sorted(Path(folder, "runs").rglob("sae.safetensors"))}


def assert_equal(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> None:
    """Equality of two folders' `weights`."""
    assert a.keys() == b.keys()
    for name in a:
        for key in a[name]:
            assert torch.equal(a[name][key], b[name][key]), (name, key)
