"""`saelight convert`: one SAE, a run's, a sweep's."""

import shutil
from pathlib import Path

import pytest
import yaml

import saelight
from saelight.convert import write
from saelight.saes import HardConcrete
from tests.support.commands import refused, saelight_
from tests.support.conversions import CONFIGS, D, F, rows, same, trained


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder with three SAEs, in the folder that commands work in."""
    monkeypatch.chdir(tmp_path)
    for name in ("topk", "relu", "batch_topk"):
        write(trained(CONFIGS[name]), Path("runs/r/saes") / name)
    Path("runs/r/checkpoints").mkdir()
    Path("runs/r/config.yaml").write_text("{}")
    return Path("runs/r")


def test_one_sae_goes_and_comes_back(run, capsys):
    assert saelight_("convert", "runs/r/saes/topk", "out", "--to", "sae_lens") == 0
    assert capsys.readouterr().out == "out: one SAE in sae_lens's format\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["cfg.json", "sae_weights.safetensors", "saelight.json"]
    assert saelight_("convert", "out", "back", "--to", "saelight", "--from", "sae_lens") == 0
    x, before = rows(), saelight.load("runs/r/saes/topk")
    assert same(before(x), saelight.load("back")(x), 1e-7)
    assert saelight.load("back").config == before.config


def test_all_of_a_run(run, capsys):
    assert saelight_("convert", "runs/r", "out", "--to", "sae_lens") == 0
    assert capsys.readouterr().out == "out: 3 SAEs in sae_lens's format\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["batch_topk", "relu", "topk"]
    assert saelight_("convert", "out", "back", "--to", "saelight") == 0
    assert same(saelight.load("runs/r/saes/relu")(rows()), saelight.load("back/relu")(rows()))


def test_all_of_a_sweep(run, capsys):
    for group in ("group-000", "group-001"):
        shutil.copytree("runs/r", f"sweeps/s/runs/{group}")
    assert saelight_("convert", "sweeps/s", "out", "--to", "dictionary_learning") == 0
    assert sorted(str(path.parent) for path in Path("out").rglob("ae.pt")) == [
        f"out/group-00{i}/{name}" for i in (0, 1) for name in ("batch_topk", "relu", "topk")
    ]


def test_where_one_cannot_go_none_goes_until_it_is_left_out(run, capsys):
    write(HardConcrete(d_sae=F).build(D), "runs/r/saes/gates")
    line = refused(capsys, "convert", "runs/r", "out", "--to", "dictionary_learning")
    assert "gates: HardConcrete has no form in dictionary_learning" in line
    assert line.endswith("; --leave-out gates converts the others")
    assert not Path("out").exists()
    line = refused(capsys, "convert", "runs/r", "out", "--to", "dictionary_learning", "--leave-out", "gatas")
    assert "holds no SAE 'gatas' to leave out; did you mean 'gates'?" in line
    assert saelight_("convert", "runs/r", "out", "--to", "dictionary_learning", "--leave-out", "gates") == 0
    assert len(list(Path("out").iterdir())) == 3


def test_all_that_cannot_go_are_named_at_once(run, capsys):
    line = refused(capsys, "convert", "runs/r", "out", "--to", "sparsify")
    assert "batch_topk: BatchTopK has no form in sparsify: it has TopK only, and 1 more cannot be converted" in line
    assert line.endswith("; --leave-out batch_topk relu converts the others")
    assert saelight_("convert", "runs/r", "out", "--to", "sparsify", "--leave-out", "batch_topk", "relu") == 0
    assert [path.name for path in Path("out").iterdir()] == ["topk"]


def test_refusals(run, capsys):
    assert "runs/r exists: name another folder" in refused(
        capsys, "convert", "runs/r/saes/topk", "runs/r", "--to", "sae_lens"
    )
    assert "holds no trained SAE of a known format" in refused(
        capsys, "convert", "runs/r/checkpoints", "out", "--to", "sae_lens"
    )
    assert "invalid choice: 'sealens'" in refused(capsys, "convert", "runs/r", "out", "--to", "sealens")
    assert "required: --to" in refused(capsys, "convert", "runs/r", "out")
    line = refused(capsys, "convert", "runs/r", "out", "--to", "circuit_tracer")
    assert "it traces transcoders" in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((0, 2), "there is none of 1: give a folder that holds them all"),
        ((0, 0), "are both of layer 0, and circuit-tracer takes one: leave one out"),
    ],
)
def test_a_set_that_is_not_whole(layers, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, layer in enumerate(layers):
        write(trained(CONFIGS["relu"], d_out=D, layer=layer), f"saes/{i}")
    assert says in refused(capsys, "convert", "saes", "out", "--to", "circuit_tracer")
    assert not Path("out").exists()


def test_what_goes_back_keeps_what_only_the_other_library_knows(tmp_path):
    """A set that named its files on a hub names them no more: they are others now."""
    write(trained(CONFIGS["relu"], d_out=D, layer=0), tmp_path / "set", to="circuit_tracer")
    config = yaml.safe_load((path := tmp_path / "set" / "config.yaml").read_text())
    (tmp_path / "set" / "layer_0.saelight.json").unlink()
    hub = {"transcoders": ["hf://a/b/layer_0.safetensors"], "feature_input_hook": "ln2.hook_normalized", "scan": "x"}
    path.write_text(yaml.safe_dump(config | hub))
    sae = saelight.load(tmp_path / "set" / "layer_0.safetensors")
    assert sae.provenance.source["hook_name"] == "blocks.0.ln2.hook_normalized"
    write(sae, tmp_path / "again", to="circuit_tracer")
    again = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert again == config | {"feature_input_hook": "ln2.hook_normalized", "scan": "x"}


def test_what_needs_saelight_there_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(HardConcrete(d_sae=F).build(D), f"saes/{name}")
    assert saelight_("convert", "saes", "out", "--to", "sae_lens") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "out: 2 SAEs in sae_lens's format"
    assert said[1:] == [
        "SAELens has no HardConcrete of its own: there, `import saelight.convert.in_sae_lens` before it is loaded"
    ]
    assert saelight.load("out/a").config == HardConcrete(d_sae=F)
