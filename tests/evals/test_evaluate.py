"""`saelight evaluate`: a table, a file beside each SAE, and what results make of it."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

import saelight
from saelight.errors import UserError
from saelight.evals.given_saes import Where, by_spot, gather
from saelight.run import evaluation_file
from saelight.saes.provenance import Provenance
from tests.support.commands import refused, saelight_
from tests.support.language_model import CONTEXT, WORDS

SAES = ("topk-2", "topk-8")


def evaluations(run="runs/tiny"):
    return {name: evaluation_file.read(Path(run, "saes", name)) for name in SAES}


@pytest.mark.usefixtures("here")
def test_a_run_is_judged_in_one_command(capsys):
    assert saelight_("evaluate", "runs/tiny", "--model", "model", "--text", "text.txt", "--per_position", "true") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("model, model.layers.0: ")
    assert out[0].endswith(f" windows of {CONTEXT}")
    assert out[2].split()[:7] == ["name", "variant", "d_sae", "L0", "FVU", "CE", "KL"]
    assert [line.split()[0] for line in out[3:]] == list(SAES)
    found = evaluations()
    for name, k in (("topk-2", 2), ("topk-8", 8)):
        metrics = found[name]["metrics"]
        assert metrics["l0"] == pytest.approx(k)
        assert metrics["ce_clean"] < metrics["ce_sae"] < metrics["ce_zero"]
        assert found[name]["special_tokens"] == [0, 1, 2]
        assert len(found[name]["positions"]["ce_sae"]) == CONTEXT
        assert sum(found[name]["density"]["counts"]) + found[name]["density"]["silent"] == 64
    assert found["topk-2"]["metrics"]["loss_recovered"] < found["topk-8"]["metrics"]["loss_recovered"] < 1.001
    # The run's results have it from then on.
    rows = {row["name"]: row for row in saelight.results("runs/tiny")}
    assert rows["topk-8"]["metrics.loss_recovered"] == found["topk-8"]["metrics"]["loss_recovered"]
    assert rows["topk-8"]["metrics.fvu"] != found["topk-8"]["metrics"]["fvu"]


def test_python_takes_saes_too_and_all_are_judged_as_alone(here):
    settings = {"model": "model", "text": ["text.txt"], "max_tokens": 200}
    together = saelight.evaluate("runs/tiny", **settings)
    alone = [saelight.evaluate(saelight.load(f"runs/tiny/saes/{name}"), **settings)[0] for name in SAES]
    assert [row["metrics"] for row in together] == [row["metrics"] for row in alone]
    assert [row["folder"] for row in alone] == [None, None]
    assert together[0]["tokens"] < 260


def test_saes_of_a_hook_are_judged_together_whatever_run_they_are_of(here):
    other = saelight.TopK(d_sae=40, k=3).build(32)
    source = {"model": "model", "hook": "layers.0", "context": CONTEXT}
    other.provenance = Provenance(name="other", source=source)
    elsewhere = saelight.TopK(d_sae=40, k=3).build(32)
    elsewhere.provenance = Provenance(name="elsewhere", source=source | {"hook": "layers.1"})
    spots = by_spot(gather(["runs/tiny", elsewhere, other]), Where(None, None, None, None))
    assert [[given.name for given in group] for _, group in spots] == [["topk-2", "topk-8", "other"], ["elsewhere"]]


def test_batches_change_nothing_but_rounding(here):
    small, large = (
        saelight.evaluate("runs/tiny/saes/topk-8", "model", ["text.txt"], batch_size=n, max_tokens=200)[0]["metrics"]
        for n in (3, 50)
    )
    assert small == pytest.approx(large, rel=1e-4)


def test_what_is_spliced_at_special_tokens(here):
    sae, settings = "runs/tiny/saes/topk-8", {"model": "model", "text": ["text.txt"], "max_tokens": 200}
    as_others, everywhere = (saelight.evaluate(sae, splice_special=splice, **settings)[0] for splice in (False, True))
    assert everywhere["tokens"] == as_others["tokens"] + as_others["windows"]  # BOS
    assert everywhere["metrics"]["ce_sae"] != as_others["metrics"]["ce_sae"]


def test_another_librarys_folder_is_judged_by_transformer_lens_name(here):
    assert saelight_("convert", "runs/tiny/saes/topk-8", "lens", "--to", "sae_lens") == 0
    Path("lens/saelight.json").unlink()
    config = json.loads(Path("lens/cfg.json").read_text())
    del config["metadata"]["hf_hook_name"]
    Path("lens/cfg.json").write_text(json.dumps(config))
    lens, own = saelight.evaluate(["lens", "runs/tiny/saes/topk-8"], "model", ["text.txt"], max_tokens=200)
    assert lens["hook"] == own["hook"]
    assert lens["metrics"]["ce_sae"] == pytest.approx(own["metrics"]["ce_sae"], rel=1e-5)
    assert Path("lens/evaluation.json").is_file()


def test_a_transcoder_is_judged_by_its_target(here):
    sae = saelight.ReLU(d_sae=48).build(32, seed=0, d_out=32)
    source, target = (
        {"model": "model", "hook": hook, "context": CONTEXT} for hook in ("layers.1.mlp.input", "layers.1.mlp")
    )
    sae.provenance = Provenance(name="t", source=source, target_source=target)
    (found,) = saelight.evaluate(sae, text=["text.txt"], max_tokens=100)
    assert (found["hook"], found["target_hook"]) == ("model.layers.1.mlp.input", "model.layers.1.mlp")
    assert found["metrics"]["ce_sae"] != found["metrics"]["ce_clean"]
    sae.provenance = Provenance(name="t", source=source)
    with pytest.raises(UserError, match="transcoder 't' does not know its target's place: give --target_hook"):
        saelight.evaluate(sae, text=["text.txt"])


def test_a_config_says_the_same(here, capsys):
    Path("e.yaml").write_text(
        yaml.safe_dump({"saes": ["runs/tiny"], "model": "model", "text": ["text.txt"], "batch_size": 3})
    )
    assert saelight_("evaluate", "--config", "e.yaml") == 0
    assert "topk-2" in capsys.readouterr().out


def test_a_model_that_knows_nothing_is_remarked_on(here, capsys):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained("model")
    blind = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        blind.lm_head.weight.mul_(40)
    blind.save_pretrained("blind")
    for file in Path("model").glob("tokenizer*"):
        Path("blind", file.name).write_bytes(file.read_bytes())
    assert saelight_("evaluate", "runs/tiny", "--model", "blind", "--text", "text.txt") == 0
    assert "blind predicts this text no better than chance (CE " in (out := capsys.readouterr().out)
    assert f"of {len(WORDS)} tokens" in out


@pytest.mark.slow
def test_a_sweeps_results_have_it(here, capsys):
    sweep = {
        "name": "s",
        "base": "base.yaml",
        "parameters": {"sae.class_path": {"value": "TopK"}, "sae.d_sae": {"value": 64}, "sae.k": {"values": [2, 8]}},
    }
    base = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"any": {"class_path": "TopK"}}},
        "data": {"class_path": "ActivationDataModule", "init_args": {"path": "acts", "batch_size": 64}},
    }
    Path("base.yaml").write_text(yaml.safe_dump(base))
    Path("s.yaml").write_text(yaml.safe_dump(sweep))
    assert saelight_("sweep", "expand", "s.yaml") == 0
    (config,) = Path("runs/s").rglob("group-*.yaml")
    assert saelight_("fit", "--config", str(config), "--trainer.folder", f"runs/s/runs/{config.stem}") == 0
    assert saelight_("evaluate", "runs/s", "--model", "model", "--text", "text.txt") == 0
    rows = list(csv.DictReader(Path("runs/s/results.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert all(0 < float(row["metrics.loss_recovered"]) < 1.001 for row in rows)
    capsys.readouterr()
    assert saelight_("sweep", "best", "runs/s", "--metric", "loss_recovered") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "loss_recovered" in lines[0]
    assert saelight_("report", "runs/s") == 0
    assert '"loss_recovered":{"label":"loss recovered"' in Path("runs/s/report.html").read_text()


REFUSED = {
    "no text": (["runs/tiny", "--model", "model"], "evaluate needs text: give --text"),
    "no file": (["runs/tiny", "--model", "model", "--text", "none/*.txt"], "no file matches 'none/*.txt'"),
    "short text": (
        ["runs/tiny", "--model", "model", "--text", "short.txt"],
        "the text has 4 tokens, less than a window of 24: ",
    ),
    "a window that the model has no positions for": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--context", "65"],
        "context must be in [2, 64] for model",
    ),
    "no SAE": (["model", "--text", "text.txt"], "model holds no trained SAE: sae.safetensors is missing"),
    "no folder": (["nowhere", "--text", "text.txt"], "nowhere holds no trained SAE: there is no such file or folder"),
    "nothing": (["--text", "text.txt"], "which SAEs? give a trained SAE's folder"),
    "no model": (["runs/tiny", "--model", "nowhere/at/all", "--text", "text.txt"], "cannot load model 'nowhere/at/all'"),
    "a hook that the model lacks": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--hook", "layers.9"],
        "the model has no module 'layers.9'; nearest: model.layers",
    ),
    "a hook of another width": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--hook", "layers.0.mlp.down_proj.input"],
        "SAE 'topk-2' has activations of width 32, and model.layers.0.mlp.down_proj.input of this model has 64: ",
    ),
    "no target": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--target_hook", "layers.1"],
        "is no transcoder and has no target: drop --target_hook",
    ),
    "no batch": (["runs/tiny", "--text", "text.txt", "--batch_size", "0"], "batch_size must be at least 1, got 0"),
    "one token": (["runs/tiny", "--text", "text.txt", "--context", "1"], "context must be at least 2, got 1"),
    "a misspelt setting": (["runs/tiny", "--txt", "text.txt"], "--txt"),
    "no config": (["--config", "none.yaml"], "none.yaml: there is no such config file"),
    "a device that is not there": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--device", "tpu9"],
        "model 'model' cannot go to device 'tpu9': ",
    ),
    "a model without a head": (
        ["runs/tiny", "--model", "headless", "--text", "text.txt"],
        "has no weights of lm_head.weight",
    ),
    "a model that reads both ways": (["runs/tiny", "--model", "bert", "--text", "text.txt"], "predicts no next token"),
    "another model's tokenizer": (
        ["runs/tiny", "--model", "model", "--text", "text.txt", "--tokenizer", "larger"],
        "model 'model' knows 18 tokens and its tokenizer 19: they do not belong together",
    ),
    "SAEs that do not say whose they are": (
        ["anonymous", "--text", "text.txt"],
        "SAE 'anonymous' does not know its language model: give --model",
    ),
    "nor where they belong": (
        ["anonymous", "--model", "model", "--text", "text.txt"],
        "SAE 'anonymous' does not know where in the model it belongs: give --hook",
    ),
}


@pytest.fixture(scope="module")
def odd(made, tmp_path_factory):
    """`made` with models and SAEs beside it that do not fit."""
    import shutil

    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = transformers.AutoModel.from_pretrained("model")
        tokenizer = transformers.AutoTokenizer.from_pretrained("model")
        for name in ("headless", "bert", "larger"):
            tokenizer.save_pretrained(name)
        model.config.tie_word_embeddings = False
        model.save_pretrained("headless")
        small = transformers.DistilBertConfig(dim=32, n_heads=2, n_layers=1, hidden_dim=32, vocab_size=18)
        transformers.DistilBertModel(small).save_pretrained("bert")
        tokenizer.add_tokens(["more"])
        tokenizer.save_pretrained("larger")
        shutil.copytree("runs/tiny/saes/topk-2", "anonymous")
        config = json.loads(Path("anonymous/config.json").read_text())
        del config["sha256"]
        Path("anonymous/config.json").write_text(json.dumps(config | {"source": {}}))
    return folder


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_judged_is_one_line(what, odd, monkeypatch, capsys):
    monkeypatch.chdir(odd)
    args, line = REFUSED[what]
    assert line in refused(capsys, "evaluate", *args)
    assert not list(Path().rglob("evaluation.json*"))
