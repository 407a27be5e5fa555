"""`saelight latents show` and `export`: what people and other viewers see of collected latents."""

import gzip
import json
import shutil

import pytest

import saelight
from saelight.latents import latent_search
from tests.latents.shown_saes import name_tokens
from tests.support.commands import refused, saelight_


@pytest.fixture
def sae(made, tmp_path):
    """An SAE of collected latents whose tokens have texts."""
    copy = shutil.copytree(made / "saes/wide", tmp_path / "wide")
    name_tokens(copy)
    digests = json.loads((copy / "latents/latents.json").read_text())
    (copy / "latents/latents.json").write_text(json.dumps(digests | {"sha256": {}}))
    return copy


@pytest.fixture
def latents(sae):
    return saelight.latents.read(sae)


def shown(capsys, *args):
    assert saelight_("latents", "show", *map(str, args)) == 0
    return capsys.readouterr().out


def numbers(text):
    """The latents of a table's lines."""
    return [int(line.split()[0]) for line in text.splitlines()[1:-1]]


def test_a_latent_in_full(latents, sae, capsys):
    latent = latents[3]
    text = shown(capsys, sae, 3, "--limit", 2)
    assert f"fires on {latent.fired:,} ({latent.density:.2%})" in text
    assert "'word" not in text  # texts begin with a space
    assert f"' word{latent.tokens[0].id}' {latent.tokens[0].count}" in text
    assert f"nearest in it: {latent.near[0].latent} ({latent.near[0].cosine:.2f})" in text
    assert f"{latent.across[0].sae}/{latent.across[0].latent} ({latent.across[0].cosine:.2f})" in text
    assert text.count("«") == 2 + sum(len(interval.contexts) for interval in latent.samples)
    marked = next(line for line in text.splitlines() if "«" in line)
    assert marked.split("«")[1].split("»")[0] == latent.top[0].tokens[latent.top[0].peak].text.strip()
    several = shown(capsys, sae, 3, 4)
    assert "latent 3 of wide" in several
    assert "latent 4 of wide" in several


def test_what_obeys_a_terminal_is_spelt_out(sae, latents, capsys):
    with_it = next(latent for latent in latents if any(8 in (t.id for t in c.tokens) for c in latent.top))
    text = shown(capsys, sae, with_it.index, "--limit", 20)
    assert "\x1b" not in text
    assert r"\x1b[31m⏎" in text


@pytest.mark.parametrize("sort", latent_search.SORTS)
def test_sorted_tables(sort, sae, latents, capsys):
    values = {"density": latents.densities, "max": latents.maxima, "similarity": latents.similarities}[sort]
    best = sorted(range(len(latents)), key=lambda i: (-values[i], i))
    assert numbers(shown(capsys, sae, "--sort", sort)) == best[:20]
    assert numbers(shown(capsys, sae, "--sort", sort, "--ascending", "--limit", 4)) == best[::-1][:4]


def test_json_is_a_line_a_latent_and_all_that_is_known(sae, latents, capsys):
    lines = shown(capsys, sae, 3, 5, "--json").splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(latents[i].as_dict())) for i in (3, 5)]


def test_a_search_finds_what_fires_on_a_text(sae, latents, capsys):
    found = latent_search.search(latents, " WORD25")
    scores = {match.latent: match.score for match in found}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for latent in latents:
        counted = sum(token.count for token in latent.tokens if "word25" in token.text) / max(1, latent.fired)
        shares = [
            max([abs(t.activation / c.value) for t in c.tokens if "word25" in t.text], default=0) for c in latent.top[:5]
        ]
        assert scores.get(latent.index, 0) == pytest.approx(counted + sum(shares) / 5, abs=0.01)
    assert numbers(shown(capsys, sae, "--search", "word25", "--limit", 3)) == [match.latent for match in found[:3]]
    by_density = numbers(shown(capsys, sae, "--search", "word25", "--sort", "density", "--limit", 24))
    assert by_density == [i for i in latent_search.order(latents, "density") if i in scores][:24]
    assert "no latent of wide fires on 'nothing like it'" in shown(capsys, sae, "--search", "nothing like it")
    assert "nothing to search for" in refused(capsys, "latents", "show", str(sae), "--search", " ")


def test_a_text_of_two_tokens_is_found(latents):
    context = latents[3].top[0]
    pair = [token.text for token in context.tokens[max(0, context.peak - 1) :][:2]]
    assert any(match.latent == 3 for match in latent_search.search(latents, "".join(pair)))


def test_saedashboards_folder(sae, latents, tmp_path, capsys):
    assert saelight_("latents", "export", str(sae), str(tmp_path / "out"), "--to", "saedashboard") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: 24 latents as 3-wide of model, 0 that never fire")
    batch = json.loads((tmp_path / "out/batch-0.json").read_text())
    assert (batch["model_id"], batch["layer"], batch["sae_set"], batch["sae_id_suffix"]) == ("model", 3, "wide", None)
    W_dec = saelight.load(sae).W_dec
    for one in batch["features"]:
        latent = latents[one["feature_index"]]
        assert one["frac_nonzero"] == latent.density
        assert sum(one["freq_hist_data_bar_heights"]) == latent.fired
        assert one["vector"] == W_dec[latent.index].tolist()
        assert one["neuron_alignment_indices"][0] == int(W_dec[latent.index].abs().argmax())
        top = [activation for activation in one["activations"] if activation["bin_contains"] == -1]
        assert len(top) == len(latent.top)
        for activation, context in zip(top, latent.top, strict=True):
            assert activation["tokens"] == [token.text for token in context.tokens]
            assert activation["values"][activation["qualifying_token_index"]] == round(context.value, 3)
            assert (activation["bin_min"], activation["bin_max"]) == (-1, round(latent.maximum, 3))
        for activation in one["activations"][len(top) :]:
            assert activation["bin_min"] <= max(activation["values"]) <= activation["bin_max"]
            assert 0 < activation["bin_contains"] <= 1
    assert json.loads((tmp_path / "out/skipped_indexes.json").read_text())["skipped_indexes"] == []


def test_neuronpedias_folder(sae, latents, tmp_path):
    args = ["--to", "neuronpedia", "--model", "gpt2-small", "--layer", "7-res-mine"]
    for name in ("one", "two"):
        assert saelight_("latents", "export", str(sae), str(tmp_path / name), *args) == 0
    out = tmp_path / "one"
    lines = {
        path.relative_to(out).as_posix(): [
            json.loads(line)
            for line in (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).splitlines()
        ]
        for path in out.rglob("*.*")
    }
    assert lines["source.jsonl"][0]["id"] == "7-res-mine"
    assert lines["model.jsonl"][0]["id"] == "gpt2-small"
    features, activations = lines["features/batch-0.jsonl.gz"], lines["activations/batch-0.jsonl.gz"]
    assert [one["index"] for one in features] == [str(i) for i in range(24)]
    assert len({one["id"] for one in activations}) == len(activations)
    for one in activations:
        assert one["maxValue"] == max(one["values"]) == one["values"][one["maxValueTokenIndex"]]
        assert (one["modelId"], one["layer"]) == ("gpt2-small", "7-res-mine")
    for one in features:
        assert one["maxActApprox"] == pytest.approx(latents[int(one["index"])].maximum, abs=1e-3)
        assert one["topkCosSimIndices"] == [near.latent for near in latents[int(one["index"])].near]


def test_exports_that_are_refused(sae, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert "layer 'x' is none there" in refused(
        capsys, "latents", "export", str(sae), out, "--to", "neuronpedia", "--layer", "x"
    )
    assert f"{sae} exists" in refused(capsys, "latents", "export", str(sae), str(sae), "--to", "neuronpedia")
    shutil.rmtree(sae / "latents")
    assert "nothing is known of latents" in refused(capsys, "latents", "export", str(sae), out, "--to", "saedashboard")
    assert not (tmp_path / "out").exists()
