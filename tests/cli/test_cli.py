"""The command line: configs go in and come back, and bad input gets one clear line."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import saelight
from saelight.cli import main as front_door
from tests.support.commands import CONFIG, changed, saelight_, write
from tests.support.variants import VARIANTS


def refused(capsys, *args: str) -> str:
    """The one line an invalid command prints; it fails and leaves no run behind."""
    assert saelight_(*args) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("saelight: error: ")]) == 1, lines
    assert lines[-1].startswith("saelight: error: ")
    assert not list(Path().glob("runs/*"))
    return lines[-1]


BAD_CONFIGS = {
    "unknown field": (
        changed(model__saes__relu__init_args={"sparsty": 1}),
        r"cfg.yaml: model.saes.relu.init_args.sparsty: .* did you mean 'sparsity'\?",
    ),
    "unknown variant": (changed(model__saes__relu__class_path="Relu"), r"model.saes.relu.*'Relu'; did you mean 'ReLU'\?"),
    "unknown trainer key": (changed(trainer__max_epoch=1), r"max_epoch'?.*did you mean 'max_epochs'\?"),
    "unknown data key": (changed(data__init_args__row=5), r"data.init_args.row: .*did you mean 'rows'\?"),
    "unknown data module": (changed(data__class_path="SyntheticData"), r"did you mean 'SyntheticDataModule'\?"),
    "unknown schedule": (
        changed(model__saes__relu__init_args={"schedule": {"kind": "cosin"}}),
        r"did you mean 'cosine'\?",
    ),
    "unknown group": (changed(modle={"a": 1}), r"did you mean 'model'\?"),
    "wrong type": (changed(model__saes__relu__init_args={"sparsity": "much"}), "sparsity.*much"),
    "k beyond d_sae": (
        changed(model__saes__topk__init_args={"k": 99, "d_sae": 16}),
        "SAE 'topk': k = 99 exceeds d_sae = 16",
    ),
    "negative sparsity": (
        changed(model__saes__relu__init_args={"sparsity": -1.0}),
        "SAE 'relu': sparsity must be at least 0",
    ),
    "no SAEs": (changed(model__saes={}), "name at least one SAE"),
    "bad name": (changed(model__saes={"a b": CONFIG["model"]["saes"]["relu"]}), "'a b' cannot name an SAE"),
    "no length": (changed(trainer__max_epochs=None), "how long to train"),
    "16-mixed": (changed(trainer__precision="16-mixed"), "use bf16-mixed or 32-true"),
    "global clipping": (changed(trainer__gradient_clip_val=1.0), "its own `clip`"),
    "too few rows": (changed(data__init_args__rows=50), "batch"),
    "not YAML": ("model: [", "cfg.yaml|model"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_config_is_refused_in_one_line(case, capsys):
    config, message = BAD_CONFIGS[case]
    assert re.search(message, refused(capsys, "fit", "--config", write(config)))


def test_a_name_given_twice_is_refused(capsys):
    text = yaml.safe_dump(CONFIG).replace("    topk:", "    relu:")
    assert re.search(r"'relu' stands twice", refused(capsys, "fit", "--config", write(text)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--config", "missing.yaml"], "^saelight: error: missing.yaml: there is no such config file"),
        (["validate", "--config=cfg.yaml", "--config=missing.json"], "missing.json: there is no such config file"),
        (["fit", "--config", "cfg.yaml", "--trainer.max_step", "3"], r"max_step.*did you mean 'max_steps'\?"),
        (["fit", "--config", "cfg.yaml", "--model.saes.relu.sparsty", "3"], r"sparsty.*did you mean 'sparsity'\?"),
        (["fit", "--config", "cfg.yaml", "--ckpt_path", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        (["fit", "--config", "cfg.yaml", "--ckpt_path", "last"], "no run named 'cfg'"),
        (["predict", "--config", "cfg.yaml"], "no run named 'cfg'"),
        (["fitt"], r"no command 'fitt'; did you mean 'fit'\?"),
        (["shards", "inf", "x"], "inf"),
        (["shards", "info", "nowhere"], "nowhere"),
        (["shards", "info"], "required.*path"),
        (["shards", "harvest", "--model", "x", "--out", "y"], "required: files, hooks$"),
    ],
)
def test_a_bad_command_is_refused_in_one_line(args, message, capsys):
    write(CONFIG)
    assert re.search(message, refused(capsys, *args))


def test_a_process_of_its_own_says_one_line_and_no_more():
    command = [sys.executable, "-m", "saelight", "fit", "--config", write(CONFIG), "--trainer.max_step", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(r"saelight: error: .*did you mean 'max_steps'\?\n", ended.stderr)


def test_one_sae_is_edited_from_the_command_line():
    assert saelight_("fit", "--config", write(CONFIG), "--model.saes.topk.k", "3", "--trainer.max_steps", "2") == 0
    assert saelight.load("runs/cfg/saes/topk").config.k == 3
    saved = yaml.safe_load(Path("runs/cfg/config.yaml").read_text())
    assert saved["model"]["saes"]["topk"]["init_args"]["k"] == 3


def test_a_saved_config_runs_again():
    assert saelight_("fit", "--config", write(CONFIG)) == 0
    assert saelight_("fit", "--config", "runs/cfg/config.yaml") == 0
    for name in CONFIG["model"]["saes"]:
        first, second = (saelight.load(f"runs/{run}/saes/{name}") for run in ("cfg", "cfg-2"))
        assert torch.equal(first.W_enc, second.W_enc)


def test_an_explicit_folder_that_exists_is_refused(capsys):
    Path("mine").mkdir()
    assert "mine exists" in refused(capsys, "fit", "--config", write(CONFIG), "--trainer.folder", "mine")
    assert not list(Path("mine").iterdir())


def test_another_config_than_the_checkpoints_is_refused(capsys):
    assert saelight_("fit", "--config", write(CONFIG), "--trainer.folder", "mine") == 0
    capsys.readouterr()
    for ckpt in ("mine/checkpoints/last.ckpt", "last"):
        args = ["fit", "--config", "cfg.yaml", "--ckpt_path", ckpt, "--trainer.folder", "mine", "--model.saes.topk.k", "3"]
        assert re.search(r"model.saes.topk.init_args.k is 4 there and 3 here.*init_from", refused(capsys, *args))
    args = ["fit", "--config", "cfg.yaml", "--trainer.folder", "mine", "--ckpt_path"]
    message = refused(capsys, *args, "last", "--data.normalise", "rms")
    assert "trained with data.normalise standard, and here it is rms" in message
    for exported in ("mine/saes/topk", "mine/saes/topk/sae.safetensors"):
        assert refused(capsys, *args, exported).endswith("give an SAE of a new run init_from: mine/saes/topk")


def test_every_variant_goes_from_the_command_line_to_python_and_back(tmp_path):
    saes = {name: variant.spec() for name, variant in VARIANTS.items()}
    assert saelight_("fit", "--config", write(changed(model__saes=saes))) == 0
    path = "runs/cfg/checkpoints/last.ckpt"
    for generation in range(2):
        bank = saelight.SAEBank.load_from_checkpoint(path, weights_only=True)
        data = saelight.SyntheticDataModule(**CONFIG["data"]["init_args"])
        assert {name: bank[name].config for name in VARIANTS} == VARIANTS
        t = saelight.Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False, name=f"python-{generation}")
        t.fit(bank, data)
        path = t.folder / "checkpoints" / "last.ckpt"
    assert saelight_("validate", "--config", "cfg.yaml", "--ckpt_path", str(path)) == 0


# --- bad data


@pytest.fixture
def shards():
    """A small folder of shards, and the config that trains on it."""
    from saelight.data.shards.writer import ShardWriter

    with ShardWriter(Path("shards"), model="none", hook="none", d_in=8, dtype="float32", rows_per_shard=400) as writer:
        writer.append(torch.randn(1000, 8))
    config = changed(data={"class_path": "ActivationDataModule", "init_args": {"path": "shards", "batch_size": 100}})
    write(config)


def test_shards_are_trained_on(shards, capsys):
    assert saelight_("shards", "verify", "shards") == 0
    assert saelight_("fit", "--config", "cfg.yaml", "--data.max_samples", "500") == 0
    assert "the SAEs are in runs/cfg/saes/\n" in capsys.readouterr().out


def corrupt_missing(first: Path) -> None:
    first.unlink()


def corrupt_truncated(first: Path) -> None:
    os.truncate(first, first.stat().st_size - 100)


def corrupt_width(first: Path) -> None:
    save_file({"activations": torch.zeros(400, 9)}, first)


def corrupt_version(first: Path) -> None:
    metadata = first.with_name("metadata.json")
    metadata.write_text(metadata.read_text().replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (corrupt_missing, "activations-00000.safetensors"),
        (corrupt_truncated, "activations-00000.safetensors.*truncated"),
        (corrupt_width, "activations-00000.safetensors"),
        (corrupt_version, "newer"),
    ],
)
def test_bad_shards_are_refused(corrupt, message, shards, capsys):
    corrupt(next(iter(sorted(Path("shards").glob("*.safetensors")))))
    assert re.search(message, refused(capsys, "fit", "--config", "cfg.yaml"))


def test_nan_activations_name_shard_and_row(shards, capsys):
    path = sorted(Path("shards").glob("*.safetensors"))[1]
    tensors = load_file(path)
    tensors["activations"][17, 3] = torch.nan
    save_file(tensors, path)
    assert saelight_("fit", "--config", "cfg.yaml") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"saelight: error: .*{path.name}, row 17", error)
    assert not list(Path().rglob("*.partial"))


def test_what_a_start_imports_is_left_alone_by_the_collector(monkeypatch):
    with front_door._uncollected():
        assert gc.isenabled()  # here torch is imported, and this is not a process of the command's own
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with front_door._uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
