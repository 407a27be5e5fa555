"""A checkout that is only on the path, as on a machine whose packages are what they are: all the same, to the end."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from saelight.run import run_folder
from tests.support.commands import CONFIG, changed, write

ROOT = Path(__file__).parents[2]
CODE = """
import importlib.metadata, sys
from saelight.cli.main import main
try:
    raise SystemExit("installed: " + importlib.metadata.version("saelight"))
except importlib.metadata.PackageNotFoundError:
    pass
fit = ["fit", "--config", "cfg.yaml"]
assert main(fit) == 0
assert main([*fit, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
"""


@pytest.fixture
def packages(tmp_path) -> Path:
    """This environment's packages, and saelight's code without word of an installation."""
    folder = tmp_path / "packages"
    folder.mkdir()
    # Not the checkout itself, where an installation may have left what it knows.
    (folder / "saelight").symlink_to(ROOT / "saelight")
    for name in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(name).iterdir():
            if "saelight" not in package.name and package.suffix != ".pth":
                (folder / package.name).symlink_to(package)
    return folder


def test_fit_exports_and_resumes(packages):
    write(changed(CONFIG, trainer__max_epochs=1, data__init_args__rows=300))
    # -S: without the environment's own packages.
    environment = os.environ | {"PYTHONPATH": str(packages)}
    done = subprocess.run([sys.executable, "-S", "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = Path("runs", "cfg")
    for sae in ("relu", "topk"):
        config = json.loads((folder / "saes" / sae / "config.json").read_text())
        assert config["versions"]["saelight"] == "not installed"
        assert config["training"]["steps"] == 6
    assert torch.load(run_folder.checkpoint(folder), weights_only=True)["global_step"] == 6
