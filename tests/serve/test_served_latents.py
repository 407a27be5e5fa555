"""Latents and own texts by HTTP."""

import json

import pytest

from saelight.latents import collection
from tests.latents import shown_saes
from tests.report.invented import invent
from tests.serve.client import answer, in_loop, served


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of three SAEs whose latents are known, with texts of tokens, and of one whose latents are not."""
    folder = tmp_path_factory.mktemp("latents")
    data = shown_saes.make_shards(folder / "data", **shown_saes.columns())
    run = shown_saes.make_run(folder / "runs" / "known", data)
    collection.collect([run])
    for name in shown_saes.SAES:
        shown_saes.name_tokens(run / "saes" / name)
    invent(folder / "runs" / "unknown", 1)
    return folder / "runs"


@in_loop
async def test_latents_are_searched_over_all_saes_listed_and_read(runs):
    async with served(runs) as (_, client):
        names = [sae["names"][0] for sae in (await answer(client, "/api/document?of=known"))[1]["saes"]]
        status, found = await answer(client, "/api/latents/search?of=known&text=WORD9")
        assert (status, found["searched"], found["of"], found["problems"]) == (200, 3, 3, [])
        assert [one["score"] for one in found["found"]] == sorted((one["score"] for one in found["found"]), reverse=True)
        assert {names[one["id"]] for one in found["found"]} == set(names)
        best = found["found"][0]
        assert any("word9" in token["text"] for token in best["context"])
        status, latent = await answer(client, f"/api/latents/{best['latent']}?of=known&id={best['id']}")
        assert (status, latent["index"], latent["maximum"]) == (200, best["latent"], pytest.approx(best["maximum"]))
        assert len(latent["top"]) > 5
        listed = (await answer(client, "/api/latents?of=known&id=0&sort=max&limit=5"))[1]["found"]
        maxima = [one["maximum"] for one in listed]
        assert (len(listed), maxima) == (5, sorted(maxima, reverse=True))
        # Two side by side: the second's SAEs are numbered on.
        both = (await answer(client, "/api/latents/search?of=unknown&of=known&text=word9"))[1]["found"]
        assert [(one["id"] - 1, one["latent"]) for one in both] == [(one["id"], one["latent"]) for one in found["found"]]
        stats = (await answer(client, "/api/cache/stats"))[1]
        assert stats["caches"]["searches"]["hits"] == 3
        assert stats["caches"]["latents"]["entries"] == 3


@in_loop
async def test_what_there_is_not_is_refused_in_one_line(runs):
    refusals = [
        ("/api/latents?of=unknown&id=0", 404, "nothing is known of the latents of topk-0 yet: saelight latents collect"),
        ("/api/latents?of=known&id=3", 404, "no SAE '3': give 0 to 2"),
        ("/api/latents?of=known&id=-1", 404, "no SAE '-1': give 0 to 2"),
        ("/api/latents?of=known&id=0&sort=x", 400, "sort is 'x': give density, max, similarity"),
        ("/api/latents?of=known&id=0&limit=0", 400, "limit is '0': give 1 to 200"),
        ("/api/latents?of=known&id=0&limit=9999", 400, "limit is '9999': give 1 to 200"),
        ("/api/latents/999?of=known&id=0", 404, "has no latent 999: give 0 to"),
        ("/api/latents/x?of=known&id=0", 404, "no latent 'x': give its number"),
        ("/api/latents/search?of=known&text=", 400, "search for a text of 1 to 200 characters"),
        (f"/api/latents/search?of=known&text={'x' * 201}", 400, "search for a text of 1 to 200 characters"),
    ]
    async with served(runs) as (_, client):
        for path, status, said in refusals:
            found, content = await answer(client, path)
            assert (found, said in content["error"]) == (status, True), content
        assert (await answer(client, "/api/latents/search?of=unknown&text=x"))[1] == {
            "found": [],
            "searched": 0,
            "of": 0,
            "problems": [],
        }


NO_MODEL = {"model": "synthetic", "hook": None}, "names no model and hook: only SAEs of a language model's activations"
A_FUNCTION = {"model": "os:getcwd", "hook": "x"}, "is made by os:getcwd, a function, which is not run here"


@pytest.mark.parametrize(("source", "said"), [NO_MODEL, pytest.param(*A_FUNCTION, marks=pytest.mark.slow)])
@in_loop
async def test_a_text_that_cannot_be_tried_is_refused(runs, source, said):
    asked = {"of": "unknown", "id": 0, "text": "def"}
    (runs / "unknown/saes/topk-0/config.json").write_text(json.dumps({"source": source}))
    async with served(runs) as (_, client):
        for body, expected in (
            (asked, said),
            (asked | {"id": 7}, "no SAE '7'"),
            (asked | {"text": ""}, "text: String should have at least 1"),
            (asked | {"text": "x" * 4_001}, "text: String should have at most 4000"),
            (asked | {"model": "x"}, "no field 'model': there are of, id, text, latents"),
        ):
            status, content = await answer(client, "/api/text", "POST", json=body)
            assert status in (400, 404)
            assert expected in content["error"]
