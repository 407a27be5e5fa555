"""What a page says of latents: some of each SAE, in a room that is bounded, and of damaged ones that they are."""

import json
import shutil

import pytest

from saelight.latents import collection
from saelight.report import document, sae_latents
from saelight.report.page import write_report
from tests.latents.shown_saes import SAES, columns, make_run, make_shards, name_tokens
from tests.report.invented import data_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    run = make_run(folder / "run", make_shards(folder / "shards", **columns()))
    collection.collect([run])
    for name in SAES:
        name_tokens(run / "saes" / name)
    return run


def known(run, page):
    write_report([run], page)
    return {sae["names"][0]: sae["latents"] for sae in data_of(page)["saes"]}


def test_latents_that_fire_are_there_with_their_contexts(run, tmp_path):
    found = known(run, tmp_path / "page.html")
    assert found.keys() == SAES.keys()
    for latents in found.values():
        densities = [latent["density"] for latent in latents["list"]]
        assert densities == sorted(densities, reverse=True)
        assert len(densities) == latents["alive"] > 10
        for latent in latents["list"]:
            assert len(latent["top"]) == 5
            for context in latent["top"]:
                assert context["a"][str(context["p"])] == 100
                assert len(context["t"]) == max(map(int, context["a"])) + 1 or len(context["t"]) > context["p"]
            assert {sae for sae, _, _ in latent["across"]} <= SAES.keys()


def test_the_room_is_bounded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(document, "LARGEST", 60_000)
    found = known(run, tmp_path / "page.html")
    assert 1 < len(found["wide"]["list"]) < found["wide"]["alive"]
    assert len(json.dumps([latents["list"] for latents in found.values()], separators=(",", ":"))) <= 60_000
    assert sae_latents.LARGEST <= 8_000_000


def test_damaged_latents_are_said_to_be_and_the_rest_is_there(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "saes/topk/latents/latents.json").write_text("{")
    shutil.rmtree(copy / "saes/wide/latents")
    found = known(copy, tmp_path / "page.html")
    assert "latents.json is damaged" in found["topk"]["problem"]
    assert found["wide"] is None
    assert found["signed"]["list"]
