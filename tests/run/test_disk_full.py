"""A full disk, a real one: one clear line, and nothing half-written beside what was complete."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from saelight.cli.main import main
from tests.support.commands import changed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


# What fills up: the checkpoint at this width; the exports when the checkpoint is turned off.
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_full_disk_is_one_line(checkpointing, small_disk, tmp_path, capsys):
    wide = {"a": {"class_path": "ReLU", "init_args": {"d_sae": 20000}}}
    config = changed(
        model__saes=wide, trainer__root=str(small_disk), trainer__max_steps=2, trainer__enable_checkpointing=checkpointing
    )
    Path("cfg.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "cfg.yaml"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("saelight: error: the disk is full")
    left = [path for path in small_disk.rglob("*") if path.is_file()]
    assert not [path for path in left if "partial" in str(path) or path.suffix in (".ckpt", ".safetensors")], left


def test_predicting_onto_a_full_disk_is_one_line(small_disk, tmp_path, capsys):
    Path("cfg.yaml").write_text(yaml.safe_dump(changed(trainer__root=str(small_disk), data__init_args__rows=20_000)))
    assert main(["fit", "--config", "cfg.yaml", "--trainer.max_steps", "2", "--trainer.logger", "false"]) == 0
    assert main(["predict", "--config", "cfg.yaml"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("saelight: error: the disk is full")
    assert not list((small_disk / "cfg" / "predictions").iterdir())
