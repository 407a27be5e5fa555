"""Clusters of latents: found where they were put, the same each time, and in the results of every trained SAE."""

import json
import subprocess
import sys

import pytest
import torch
from sklearn.metrics import silhouette_score

import saelight
from saelight.bank.evaluation import Evaluation
from saelight.metrics import find_clusters, latent_features, own_cosines, weight_correlation
from tests.support.callbacks import Poison
from tests.support.runs import data, trainer
from tests.support.variants import VARIANTS

CENTRES = torch.tensor([[-4.0, -1.0, 0.1], [-2.0, 0.5, 0.9], [-1.0, -3.0, 0.5]], dtype=torch.float64)


def latents(count, blobs, seed=0, spread=0.05):
    """Features of latents around the first `blobs` centres, and which is around which."""
    generator = torch.Generator().manual_seed(seed)
    blob = torch.arange(count) % blobs
    return CENTRES[blob] + spread * torch.randn(count, 3, generator=generator, dtype=torch.float64), blob


@pytest.mark.parametrize("count", [60, 600, 3000])
@pytest.mark.parametrize("blobs", [2, 3])
def test_separate_blobs_are_clusters(blobs, count):
    features, blob = latents(count, blobs)
    found = find_clusters(features)
    assert found.clusters == blobs
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    assert found.silhouette == pytest.approx(silhouette_score(standardised, blob), abs=0.02)
    assert found.silhouette > 0.9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [3000, 12_000])
def test_one_blob_is_no_cluster(count, seed):
    found = find_clusters(latents(count, 1, seed)[0])
    assert found.clusters == 0
    assert found.silhouette != found.silhouette


def test_far_off_latents_are_noise_and_no_cluster():
    features, _ = latents(600, 3)
    far = 8 * torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = find_clusters(torch.cat([features, far]))
    assert found.clusters == 3
    assert found.silhouette > 0.9


def test_the_same_rows_give_the_same_numbers_sampled_or_not():
    features, _ = latents(20_000, 3, spread=0.3)
    found = find_clusters(features)
    assert found.clusters == 3
    assert find_clusters(features) == found
    other = find_clusters(features, seed=1)
    assert other.clusters == 3
    assert other.silhouette != found.silhouette
    assert other.silhouette == pytest.approx(found.silhouette, abs=0.03)


def test_columns_count_alike_and_constant_ones_not_at_all():
    features, _ = latents(600, 3)
    found = find_clusters(features)
    scaled = find_clusters(features * torch.tensor([1e-4, 1.0, 1e4]) + 7)
    assert scaled == pytest.approx(found, rel=1e-6)
    features[:, 1] = 0.1
    assert find_clusters(features) == find_clusters(features[:, [0, 2]])


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_a_handful_of_latents_has_no_clusters(rows):
    assert find_clusters(latents(rows, 2)[0]).clusters == 0


def test_latents_that_are_all_alike_have_no_clusters():
    assert find_clusters(torch.ones(50, 3, dtype=torch.float64)).clusters == 0


def test_what_is_not_finite_has_no_number():
    features, _ = latents(60, 3)
    features[5, 1] = torch.nan
    found = find_clusters(features)
    assert found.clusters != found.clusters
    assert found.silhouette != found.silhouette


def test_features_are_of_the_latents_that_fired():
    frequency = torch.tensor([0.0, 0.01, 1.0, 0.0], dtype=torch.float64)
    bias, cosine = torch.tensor([5.0, 6.0, 7.0, 8.0]), torch.tensor([0.0, 0.25, 0.5, 0.75])
    assert latent_features(frequency, bias, cosine).tolist() == [[-2.0, 6.0, 0.25], [0.0, 7.0, 0.5]]
    assert latent_features(frequency, None, cosine)[:, 1].tolist() == [0.0, 0.0]
    assert latent_features(frequency * torch.nan, bias, cosine).isnan().any(1).all()


@pytest.mark.parametrize("block_elements", [1, 100, 2**24])
def test_cosines_are_the_same_whatever_the_block(block_elements):
    enc, dec = torch.randn(16, 23), torch.randn(23, 16)
    expected = [float(torch.cosine_similarity(enc[:, i].double(), dec[i].double(), dim=0)) for i in range(23)]
    assert own_cosines(enc, dec, block_elements).tolist() == pytest.approx(expected)
    assert float(weight_correlation(enc, dec)) == pytest.approx(sum(expected) / 23)


def test_an_saes_clusters_are_those_of_its_alive_latents():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 64, generator=generator)
    sae = saelight.ReLU(d_sae=300).build(64)
    alive = torch.arange(300) >= 100
    with torch.no_grad():
        sae.W_enc[:, 1::2] = torch.randn(64, 150, generator=generator)  # every other latent is not tied
        sae.b_enc.copy_(torch.where(alive, torch.arange(300) % 2 + 0.1 * torch.randn(300, generator=generator), -1e3))
    evaluation = Evaluation([sae])
    evaluation.update([sae], x, x)
    evaluation.finish([sae], None)
    measured = evaluation.latents(sae, 0)
    frequency = (sae.encode(x) > 0).double().mean(0)
    assert torch.equal(frequency > 0, alive)
    cosine = torch.cosine_similarity(sae.W_enc.T.double(), sae.W_dec.double()).detach()
    expected = find_clusters(torch.stack([frequency.log10(), sae.b_enc.detach(), cosine], 1).detach()[alive])
    assert (measured["clusters"], measured["silhouette"]) == pytest.approx(expected)
    assert expected.clusters == 2
    assert measured["weight_correlation"] == pytest.approx(float(cosine[alive].mean()))


def test_a_transcoder_between_unequal_widths_has_clusters_and_no_correlation():
    sae = saelight.ReLU(d_sae=60).build(16, d_out=10)
    evaluation = Evaluation([sae])
    evaluation.update([sae], torch.randn(100, 16), torch.randn(100, 10))
    evaluation.finish([sae], None)
    measured = evaluation.latents(sae, 0)
    assert measured["clusters"] >= 0
    assert measured["weight_correlation"] != measured["weight_correlation"]


def validation_rows(t):
    return t.datamodule.normalisation(torch.cat([batch.clone() for batch in t.datamodule.val_dataloader()]))


def test_every_trained_sae_has_them_among_its_results(tmp_path):
    t = trainer(tmp_path)
    bank = saelight.SAEBank(dict(VARIANTS), d_in=16)
    t.fit(bank, data())
    rows = {row["name"]: row for row in map(json.loads, (t.folder / "results.jsonl").read_text().splitlines())}
    x = validation_rows(t)
    for name, row in rows.items():
        measured, sae = row["metrics"], bank[name]
        assert (measured["silhouette"] is None) == (measured["clusters"] < 2)
        alive = (sae.encode(x) != 0).any(0)
        expected = 1.0 if name == "matching_pursuit" else float(weight_correlation(sae.W_enc, sae.W_dec, alive))
        assert measured["weight_correlation"] == pytest.approx(expected)
    again = saelight.SAEBank(dict(VARIANTS), d_in=16)
    t = trainer(tmp_path)
    t.fit(again, data())
    for row in map(json.loads, (t.folder / "results.jsonl").read_text().splitlines()):
        assert row["metrics"] == rows[row["name"]]["metrics"]


def test_a_poisoned_sae_has_none_and_its_siblings_have(tmp_path):
    t = trainer(tmp_path, callbacks=[Poison("topk", after=3)])
    with pytest.warns(UserWarning, match="'topk' is quarantined"):
        t.fit(saelight.SAEBank({"topk": VARIANTS["topk"], "relu": VARIANTS["relu"]}, d_in=16), data())
    topk, relu = (json.loads(line)["metrics"] for line in (t.folder / "results.jsonl").read_text().splitlines())
    assert [topk[key] for key in ("clusters", "silhouette", "weight_correlation")] == [None] * 3
    assert relu["clusters"] >= 0
    assert -1 <= relu["weight_correlation"] <= 1


def test_without_validation_there_are_none(tmp_path):
    t = trainer(tmp_path, limit_val_batches=0)
    t.fit(saelight.SAEBank({"relu": VARIANTS["relu"]}, d_in=16), data())
    assert json.loads((t.folder / "results.jsonl").read_text())["metrics"] == {}


def test_scikit_learn_is_imported_where_it_is_used():
    code = "import sys, saelight.bank.evaluation; print([m for m in sys.modules if m.split('.')[0] == 'sklearn'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
