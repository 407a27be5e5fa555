"""A variant in a package of the user's own: named by its class path, and never imported because a file says so."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import saelight
from saelight.bank.checkpoint_file import ChecksummedIO
from saelight.run import run_folder
from tests.support.commands import CONFIG, changed, refused, saelight_, write
from tests.support.sweeps import rows

ROOT = Path(__file__).parents[1]
VARIANT = re.search(r'```python\n("""mypkg/strongest.py.*?)```', (ROOT / "docs" / "saes.md").read_text(), re.DOTALL)[1]
"""The one that the docs show."""
TRAP = """
from pathlib import Path

Path(__file__).with_name("sprung").touch()
"""
SAE_ = {"class_path": "mypkg.Strongest", "init_args": {"expansion": 2, "gain": 0.5, "lr": 1.0e-3}}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with `mypkg`, the user's, and `trap`, which leaves a file where it is imported."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "mypkg").mkdir()
    (folder / "mypkg" / "__init__.py").write_text("from mypkg.strongest import Strongest as Strongest\n")
    (folder / "mypkg" / "strongest.py").write_text(VARIANT)
    (folder / "trap.py").write_text(TRAP)
    return folder


@pytest.fixture(autouse=True)
def importable(packages, monkeypatch):
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{ROOT}")


@pytest.fixture(scope="module")
def run(packages, tmp_path_factory):
    """The folder of a finished run of the command, which trained one of the user's and one of saelight's."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(packages)
        assert saelight_("fit", "--config", write(changed(model__saes__mine=SAE_))) == 0
    return folder / "runs" / "cfg"


def test_a_config_names_it_and_the_export_holds_it(run):
    written = json.loads((run / "saes" / "mine" / "config.json").read_text())
    assert (written["class_path"], written["init_args"]["gain"]) == ("mypkg.strongest.Strongest", 0.5)
    loaded = saelight.load(run / "saes" / "mine")
    assert type(loaded).__name__ == "StrongestSAE"
    assert ((loaded.encode(torch.randn(5, 8)) > 0).sum(1) <= 1).all()


def test_checkpoints_load_evaluate_and_go_on(run):
    checkpoint = str(run_folder.checkpoint(run))
    bank = saelight.SAEBank.load_from_checkpoint(checkpoint, weights_only=True)
    assert bank["mine"].config.gain == 0.5
    config = write(changed(model__saes__mine=SAE_))
    assert saelight_("validate", "--config", config, "--ckpt_path", checkpoint) == 0
    assert saelight_("fit", "--config", config, "--ckpt_path", checkpoint) == 0


def test_help_lists_its_fields(capsys):
    assert saelight_("fit", "--model.saes.help", "mypkg.Strongest") == 0
    assert "Factor on the latents" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_trains_it(capsys):
    sweep = {
        "name": "own",
        "base": write(CONFIG, "base.yaml"),
        "sae": {"class_path": "mypkg.Strongest", "expansion": 2},
        "parameters": {"sae.gain": {"values": [0.5, 1.0]}},
    }
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert saelight_("sweep", "run", "sweep.yaml", "--dry-run") == 0
    assert saelight_("sweep", "expand", "sweep.yaml") == 0
    assert saelight_("sweep", "run", "runs/own") == 0
    trained = {(row["state"], row["config"]["init_args"]["gain"]) for row in rows("runs/own").values()}
    assert trained == {("finished", 0.5), ("finished", 1.0)}


FRESH = """
import sys
import saelight
from saelight.bank import SAEBank

folder, checkpoint = sys.argv[1:]
for read in (lambda: saelight.load(folder), lambda: SAEBank.load_from_checkpoint(checkpoint)):
    try:
        read()
    except saelight.UserError as error:
        print(error)
assert "mypkg" not in sys.modules
import mypkg
print(saelight.load(folder).config.gain, SAEBank.load_from_checkpoint(checkpoint)["mine"].config.gain)
"""


def test_who_did_not_import_it_is_told_to(run):
    command = [sys.executable, "-c", FRESH, str(run / "saes" / "mine"), str(run_folder.checkpoint(run))]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "`import mypkg.strongest`" in out[0]
    assert "`import mypkg.strongest`" in out[1]
    assert out[2] == "0.5 0.5"


TRAPS = {
    "the variant": {"class_path": "trap.Strongest", "init_args": {}},
    "its base": {
        "class_path": "saelight.saes.matryoshka.Matryoshka",
        "init_args": {"base": {"class_path": "trap.Strongest"}},
    },
    "its schedule": {"class_path": "saelight.saes.topk.TopK", "init_args": {"schedule": {"class_path": "trap.Strongest"}}},
}
REFUSAL = r"'trap\.Strongest' is imported: import the module|Schedule has no field 'class_path'"


@pytest.mark.parametrize("spec", TRAPS.values(), ids=TRAPS)
def test_a_downloaded_sae_imports_nothing(spec, run, packages, capsys):
    shutil.copytree(run / "saes" / "mine", "poisoned")
    config = Path("poisoned/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | spec))
    with pytest.raises(saelight.UserError, match=REFUSAL):
        saelight.load("poisoned")
    start = changed(SAE_, init_args__init_from="poisoned")
    assert re.search(REFUSAL, refused(capsys, "fit", "--config", write(changed(model__saes__mine=start))))
    assert not (packages / "sprung").exists()


def poisoned(run: Path, spec: dict, **more) -> str:
    """The run's checkpoint with a class path that would do harm, and a checksum that holds."""
    checkpoint = torch.load(run_folder.checkpoint(run), weights_only=True)
    checkpoint["hyper_parameters"]["saes"]["mine"] = spec
    checkpoint["hyper_parameters"] |= more
    ChecksummedIO().save_checkpoint(checkpoint, "poisoned.ckpt")
    return "poisoned.ckpt"


@pytest.mark.parametrize("spec", TRAPS.values(), ids=TRAPS)
def test_a_downloaded_checkpoint_imports_nothing(spec, run, packages):
    # The second way to build a bank is LightningCLI's, which a checkpoint may ask for.
    for more in ({}, {"_instantiator": "lightning.pytorch.cli.instantiate_module"}):
        with pytest.raises(saelight.UserError, match=REFUSAL):
            saelight.SAEBank.load_from_checkpoint(poisoned(run, spec, **more), weights_only=True)
    assert not (packages / "sprung").exists()


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_command_imports_nothing_for_a_checkpoint(command, run, packages, capsys):
    config = write(changed(model__saes__mine=SAE_))
    said = refused(capsys, command, "--config", config, "--ckpt_path", poisoned(run, TRAPS["the variant"]))
    assert "saes.mine.class_path is 'trap.Strongest' there" in said
    assert not (packages / "sprung").exists()
