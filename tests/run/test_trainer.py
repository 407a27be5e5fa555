"""A run and its folder: what fit, validate, test and predict leave behind."""

import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file

import saelight
from saelight.run import run_folder
from tests.support.banks import assert_equal
from tests.support.callbacks import Explode, Poison
from tests.support.runs import data, trainer
from tests.support.variants import VARIANTS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trained bank, its trainer and its data."""
    t, d = trainer(tmp_path_factory.mktemp("run"), name="first"), data()
    bank = saelight.SAEBank(dict(VARIANTS), d_in=d.d_in)
    t.fit(bank, d)
    return bank, t, d


def test_a_run_is_one_folder(finished):
    _, t, _ = finished
    assert t.folder.name == "first"
    names = {str(path.relative_to(t.folder)) for path in t.folder.rglob("*") if path.is_file()}
    assert {"checkpoints/last.ckpt", "results.jsonl"} <= names
    for sae in VARIANTS:
        assert {f"saes/{sae}/config.json", f"saes/{sae}/sae.safetensors", f"logs/{sae}/metrics.csv"} <= names
        assert any(name.startswith(f"logs/{sae}/events.out.tfevents") for name in names)
    assert not [name for name in names if "partial" in name]


def test_final_weights_between_two_validations_are_validated_and_logged(tmp_path):
    t, d = trainer(tmp_path, max_steps=5), data()
    t.fit(saelight.SAEBank({"topk": VARIANTS["topk"]}, d_in=d.d_in), d)
    with (t.folder / "logs" / "topk" / "metrics.csv").open(newline="") as file:
        [row] = [row for row in csv.DictReader(file) if row["val/fvu"]]
    result = json.loads((t.folder / "results.jsonl").read_text())
    assert (int(row["step"]), float(row["val/fvu"])) == (5, pytest.approx(result["metrics"]["fvu"]))


@pytest.mark.parametrize("name", VARIANTS)
def test_an_exported_saes_forward_equals_the_banks(name, finished):
    bank, t, d = finished
    x = d.init_sample(64)
    folder = t.folder / "saes" / name
    exact = saelight.load(folder, fold_normalisation=False)
    assert torch.equal(exact(x), bank(x)[name])
    scale, mean = d.normalisation.scale, d.normalisation.mean_D.float()
    torch.testing.assert_close(saelight.load(folder)(x / scale + mean), bank(x)[name] / scale + mean)
    config = json.loads((folder / "config.json").read_text())
    assert config["normalisation"] == {"kind": "standard", "scale": scale}
    metrics = config["training"].pop("metrics")
    assert config["training"] == {"state": "finished", "reason": None, "steps": 20, "tokens": 2000}
    rows = [json.loads(line) for line in (t.folder / "results.jsonl").read_text().splitlines()]
    assert metrics == next(row["metrics"] for row in rows if row["name"] == name)


def test_a_loaded_sae_says_what_it_is(finished):
    _, t, d = finished
    sae = saelight.load(t.folder / "saes" / "topk")
    assert (sae.name, sae.source) == ("topk", d.source)
    assert sae.metrics["l0"] == 4
    assert (
        repr(sae)
        == f"<TopKSAE 'topk': d_in {d.d_in}, d_sae {sae.d_sae}, of synthetic, L0 4.0, FVU {sae.metrics['fvu']:.4f}>"
    )
    bare = saelight.TopK(k=2, d_sae=32).build(8)
    assert (bare.name, bare.source, bare.metrics, repr(bare)) == (None, {}, {}, "<TopKSAE: d_in 8, d_sae 32>")


def test_results_hold_the_final_metrics(finished):
    bank, t, _ = finished
    rows = [json.loads(line) for line in (t.folder / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == list(VARIANTS)
    for row in rows:
        finite = {key: value for key, value in bank.last_metrics[row["name"]].items() if math.isfinite(value)}
        once = {"weight_correlation", "clusters", "silhouette"}  # measured when training is over, by no validation
        assert {k: v for k, v in row["metrics"].items() if v is not None} == finite
        assert {"l0", "fvu", "mmcs", "dead"} | once <= row["metrics"].keys()
        assert row["state"] == "finished"
        assert row["tokens"] == 2000


def test_the_final_weights_are_validated_when_training_ends_inside_an_epoch(tmp_path, capsys):
    d, t = data(), trainer(tmp_path, max_steps=7, max_epochs=-1)
    bank = saelight.SAEBank({"a": VARIANTS["topk"]}, d_in=16)
    t.fit(bank, d)
    assert bank.evaluated_at == 7
    head, row, place = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "variant", "d_sae", "L0", "wanted", "FVU", "MMCS", "dead", "%", "time"]
    assert row.split()[:3] == ["a", "TopK", "40"]
    assert place == f"the SAEs are in {t.folder}/saes/"


def test_names_are_numbered_and_explicit_folders_refused(tmp_path):
    for expected in ("run", "run-2", "run-3"):
        t = trainer(tmp_path, max_steps=1)
        t.fit(saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16), data())
        assert t.folder.name == expected
    assert run_folder.latest(tmp_path / "runs", "run").name == "run-3"
    again = trainer(tmp_path, folder=str(tmp_path / "runs" / "run"))
    with pytest.raises(saelight.UserError, match="exists"):
        again.fit(saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16), data())


def test_fast_dev_run_leaves_nothing(tmp_path):
    trainer(tmp_path, fast_dev_run=True).fit(saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16), data())
    assert not list(tmp_path.rglob("*"))


def test_evaluation_needs_no_training_and_writes_no_logs(finished, capsys):
    bank, t, d = finished
    before = {path: path.stat().st_mtime_ns for path in t.folder.rglob("*")}
    again = trainer(t.folder.parent)
    again.validate(saelight.SAEBank(dict(VARIANTS), d_in=16), datamodule=d, ckpt_path=str(run_folder.checkpoint(t.folder)))
    assert "first/saes/\n" in capsys.readouterr().out
    again.test(datamodule=d, model=bank)
    assert bank.last_metrics["relu"].keys() == {"mmcs"} | bank.last_metrics["relu"].keys()
    assert {path: path.stat().st_mtime_ns for path in t.folder.rglob("*")} == before


def test_predict_writes_each_tokens_strongest_latents(finished):
    bank, t, _ = finished
    d = data(predict_rows=250)
    bank.predict_top = 5
    t.predict(bank, datamodule=d)
    x = torch.empty(250, 16)
    d.opened.rows.read(0, x)
    for name in VARIANTS:
        tops = load_file(t.folder / "predictions" / f"{name}.safetensors")
        f = bank[name].encode(d.normalisation(x))
        strength, indices = f.abs().topk(5)
        torch.testing.assert_close(tops["values"], f.gather(1, indices))
        assert torch.equal(tops["indices"][strength > 0].long(), indices[strength > 0])
    assert not list((t.folder / "predictions").glob("*.partial"))


def test_the_same_seed_gives_the_same_run(tmp_path):
    banks = []
    for _ in range(2):
        bank = saelight.SAEBank(dict(VARIANTS), d_in=16)
        trainer(tmp_path).fit(bank, data())
        banks.append(bank)
    for name in VARIANTS:
        assert_equal(banks[0][name].state_dict(), banks[1][name].state_dict())


def test_the_length_of_training_must_be_given(tmp_path):
    with pytest.raises(saelight.UserError, match="how long to train"):
        trainer(tmp_path, max_epochs=None).fit(saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16), data())
    assert not (tmp_path / "runs").exists()
    bank = saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16, max_tokens=3100)
    t = trainer(tmp_path, max_epochs=None)
    t.fit(bank, data())
    assert t.global_step == 31


def test_a_length_in_tokens_counts_every_accumulated_batch(tmp_path):
    bank = saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=16, max_tokens=1500)
    t = trainer(tmp_path, max_epochs=None, accumulate_grad_batches=3)
    t.fit(bank, data())
    assert (t.global_step, bank.tokens_seen, bank.horizon.tokens) == (5, 1500, 1500)


def test_the_data_must_fit_the_bank(tmp_path):
    with pytest.raises(saelight.UserError, match="d_in = 16, but the bank was built for d_in = 8"):
        trainer(tmp_path).fit(saelight.SAEBank({"a": VARIANTS["relu"]}, d_in=8), data())
    assert not list(tmp_path.rglob("*"))


def test_results_of_a_poisoned_sae_are_json_still(tmp_path):
    poison = Poison("topk", after=3)
    t = trainer(tmp_path, callbacks=[poison])
    with pytest.warns(UserWarning, match="'topk' is quarantined: non-finite loss at step 3.*none are exported"):
        t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data())
    text = (t.folder / "results.jsonl").read_text()
    assert "NaN" not in text
    states = {row["name"]: (row["state"], row["reason"]) for row in map(json.loads, text.splitlines())}
    assert states["topk"] == ("quarantined", "non-finite loss at step 3")
    assert {path.name for path in (t.folder / "saes").iterdir()} == set(VARIANTS) - {"topk"}


def test_a_quarantined_sae_is_exported_while_finite(tmp_path):
    t = trainer(tmp_path, callbacks=[Explode("topk", after=3)])
    with pytest.warns(UserWarning, match="last finite weights are in"):
        t.fit(saelight.SAEBank(dict(VARIANTS), d_in=16), data())
    config = json.loads((t.folder / "saes" / "topk" / "config.json").read_text())
    assert config["training"]["state"] == "quarantined"
    assert saelight.load(t.folder / "saes" / "topk").W_enc.isfinite().all()
