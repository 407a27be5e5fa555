"""delphi's cache of latents holds every activation, in the numbering that its reader has."""

import json

import pytest
import torch
from safetensors.numpy import load_file

import saelight
from saelight.callbacks.delphi_cache import SEQUENCE, WriteDelphiCache
from saelight.errors import UserError
from tests.latents.shown_saes import D_IN, ROWS, SAES, columns, make_shards
from tests.support.commands import CONFIG, changed, saelight_, write
from tests.support.runs import data, trainer


def predicted(tmp_path, **settings):
    rows = saelight.ActivationDataModule(str(tmp_path / "shards"), batch_size=100, normalise="none", **settings)
    bank = saelight.SAEBank(dict(SAES), d_in=D_IN)
    trainer(tmp_path, callbacks=[WriteDelphiCache()]).predict(bank, datamodule=rows)
    return bank, tmp_path / "runs/run/delphi"


@pytest.mark.parametrize("n_rows", [ROWS, 2 * SEQUENCE])
def test_every_activation_is_there(n_rows, tmp_path, capsys):
    make_shards(tmp_path / "shards", **columns())
    bank, folder = predicted(tmp_path, predict_rows=n_rows)
    assert f"delphi's cache written to {folder}/latents/" in capsys.readouterr().out
    x = torch.empty(n_rows // SEQUENCE * SEQUENCE, D_IN)
    saelight.ActivationDataModule(str(tmp_path / "shards")).opened.rows.read(0, x)
    for name, sae in zip(bank.names, bank.saes, strict=True):
        f, first = sae.encode(x).detach(), 0
        found = torch.zeros_like(f)
        for path in sorted((folder / "latents" / name).glob("*.safetensors"), key=lambda path: int(path.stem.split("_")[0])):
            start, last = map(int, path.stem.split("_"))
            assert start == first
            first = last + 1
            content = load_file(path)
            assert content["locations"].dtype == "uint16"
            sequence, place, latent = torch.from_numpy(content["locations"].astype(int)).T
            found[sequence * SEQUENCE + place, latent + start] = torch.from_numpy(content["activations"]).float()
            assert content["tokens"].reshape(-1).tolist() == columns()["token_ids"][: len(x)].tolist()
        assert first == sae.d_sae
        torch.testing.assert_close(found, f, rtol=1e-3, atol=2e-5)
        assert json.loads((folder / "latents" / name / "config.json").read_text())["ctx_len"] == SEQUENCE
    assert not (tmp_path / "runs/run/predictions").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_what_delphi_cannot_show(tmp_path):
    with pytest.raises(UserError, match="these data have no token ids"):
        trainer(tmp_path, callbacks=[WriteDelphiCache()]).predict(saelight.SAEBank(dict(SAES), d_in=16), datamodule=data())
    make_shards(tmp_path / "shards", **columns())
    with pytest.raises(UserError, match="delphi takes sequences of 256 tokens, and the data have 200"):
        predicted(tmp_path, predict_rows=200)
    assert not list(tmp_path.rglob("delphi*"))


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path / "shards", **columns())
    rows = {"class_path": "ActivationDataModule", "init_args": {"path": "shards", "batch_size": 100}}
    config = write(changed(CONFIG, data=rows))
    assert saelight_("fit", "--config", config) == 0
    assert saelight_("predict", "--config", config, "--to", "delphi") == 0
    assert len(list((tmp_path / "runs/cfg/delphi/latents").rglob("*.safetensors"))) == 10
    assert not (tmp_path / "runs/cfg/predictions").exists()
    capsys.readouterr()
