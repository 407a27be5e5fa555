"""Metrics of the weights: against numpy, whatever the block, and their properties."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from saelight.errors import UserError
from saelight.metrics import (
    MCC,
    MMCS,
    Coherence,
    WeightCorrelation,
    coherence,
    mcc,
    mmcs,
    nearest,
    one_to_one,
    weight_correlation,
)
from tests.metrics.reference import cosines
from tests.metrics.reference import mmcs as reference

BLOCKS = pytest.mark.parametrize("block_elements", [1, 100, 2**24])


def directions(rows, seed, width=16, dtype=torch.float32):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def copies(features, others, seed):
    """Directions, and a decoder that holds them permuted and scaled beside others."""
    truth = directions(features, seed, dtype=torch.float64)
    scale = 0.1 + torch.rand(features, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
    return truth, torch.cat([directions(others, seed + 1, dtype=torch.float64), (truth * scale)[order]])


@BLOCKS
def test_mmcs_equals_numpy_whatever_the_block(block_elements):
    truth, decoder = directions(23, 0), directions(31, 1)
    plain = mmcs(truth, decoder, block_elements=block_elements)
    assert plain.item() == pytest.approx(reference(truth, decoder), rel=1e-6)
    signed = mmcs(truth, decoder, signed=True, block_elements=block_elements)
    assert signed.item() == pytest.approx(reference(truth, torch.cat([decoder, -decoder])), rel=1e-6)


@BLOCKS
def test_the_nearest_latent_is_numpys(block_elements):
    truth, decoder = directions(23, 0), directions(31, 1)
    expected = cosines(truth, decoder)
    found = nearest(truth, decoder, block_elements=block_elements)
    assert found.feature_P.tolist() == list(range(23))
    assert found.latent_P.tolist() == expected.argmax(1).tolist()
    assert found.cosine_P.tolist() == pytest.approx(expected.max(1), rel=1e-5)
    signed = nearest(truth, decoder, signed=True, block_elements=block_elements)
    assert signed.latent_P.tolist() == abs(expected).argmax(1).tolist()
    assert signed.cosine_P.tolist() == pytest.approx(expected[range(23), abs(expected).argmax(1)], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30), st.integers(0, 2**16))
def test_a_permuted_scaled_copy_is_found_whatever_lies_beside_it(features, others, seed):
    truth, decoder = copies(features, others, seed)
    assert mmcs(truth, decoder).item() == pytest.approx(1, rel=1e-12)
    assert mcc(truth, decoder).item() == pytest.approx(1, rel=1e-12)
    found = one_to_one(truth, decoder)
    assert sorted(found.feature_P.tolist()) == list(range(features))
    assert torch.allclose(found.cosine_P, torch.ones(features, dtype=torch.float64))


@pytest.mark.parametrize(("features", "latents"), [(3, 5), (5, 3), (4, 4), (1, 6)])
@BLOCKS
def test_mcc_equals_the_best_of_all_matchings(features, latents, block_elements):
    """By trying every one."""
    truth, decoder = directions(features, 0, width=4), directions(latents, 1, width=4)
    cos = abs(cosines(truth, decoder))
    cos = cos if features <= latents else cos.T
    best = max(np.mean(cos[range(len(cos)), p]) for p in itertools.permutations(range(cos.shape[1]), len(cos)))
    found = one_to_one(truth, decoder, block_elements)
    assert found.cosine_P.abs().mean().item() == pytest.approx(best, rel=1e-6)
    assert mcc(truth, decoder).item() == pytest.approx(best, rel=1e-6)
    assert len(set(found.feature_P.tolist())) == len(set(found.latent_P.tolist())) == min(features, latents)
    signed = cosines(truth, decoder)[found.feature_P, found.latent_P]
    assert found.cosine_P.tolist() == pytest.approx(signed, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**16))
def test_one_latent_cannot_stand_for_two_features(features, latents, seed):
    """So matching one to one is at most matching freely, as far as there are latents for all."""
    truth, decoder = (directions(n, seed + i, 5, torch.float64) for i, n in enumerate((features, latents)))
    assert mcc(truth, decoder) == pytest.approx(mcc(decoder, truth))
    if latents >= features:
        assert mcc(truth, decoder) <= mmcs(truth, decoder, signed=True) + 1e-9


def test_an_opposite_direction_is_a_match_only_of_signed_latents():
    truth = torch.eye(4)
    assert mmcs(truth, -truth).item() == 0
    assert mmcs(truth[:1], -truth[:1]).item() == -1
    assert mmcs(truth, -truth, signed=True).item() == 1
    assert mcc(truth, -truth).item() == 1
    assert nearest(truth, -truth, signed=True).cosine_P.tolist() == [-1] * 4


def test_a_zero_row_matches_nothing_and_a_nan_row_shows():
    truth, decoder = directions(5, 0), directions(8, 1)
    decoder[0] = 0
    for value in (mmcs(truth, decoder), mcc(truth, decoder), coherence(decoder), weight_correlation(decoder.T, decoder)):
        assert value.isfinite()
    decoder[0] = torch.nan
    for value in (mmcs(truth, decoder), mcc(truth, decoder), coherence(decoder), weight_correlation(decoder.T, decoder)):
        assert value.isnan()
    with pytest.raises(UserError, match="not finite"):
        one_to_one(truth, decoder)


@BLOCKS
def test_coherence_equals_numpy_whatever_the_block(block_elements):
    decoder = directions(31, 1)
    expected = abs(cosines(decoder, decoder) - np.eye(31)).max()
    assert coherence(decoder, block_elements).item() == pytest.approx(expected, rel=1e-6)
    decoder[7] = -3 * decoder[20]
    assert coherence(decoder, block_elements).item() == pytest.approx(1, rel=1e-6)
    assert coherence(decoder[:1], block_elements).item() == 0


def test_weight_correlation_is_the_mean_cosine_of_alive_latents():
    encoder, decoder = directions(31, 0), directions(31, 1)
    expected = cosines(encoder, decoder).diagonal()
    alive = torch.arange(31) % 3 == 0
    assert weight_correlation(encoder.T, decoder).item() == pytest.approx(expected.mean(), rel=1e-9)
    assert weight_correlation(encoder.T, decoder, alive).item() == pytest.approx(expected[::3].mean(), rel=1e-9)
    assert weight_correlation(encoder.T, decoder, alive & False).isnan()
    assert weight_correlation(decoder.T * 7, decoder).item() == pytest.approx(1)


def test_the_metrics_are_the_functions_and_average_over_updates():
    truth, first, second = directions(5, 0), directions(8, 1).bfloat16(), directions(8, 2)
    cases = [
        (MMCS(truth), lambda w: mmcs(truth, w)),
        (MMCS(truth, signed=True), lambda w: mmcs(truth, w, signed=True)),
        (MCC(truth), lambda w: mcc(truth, w)),
        (Coherence(), coherence),
    ]
    for metric, function in cases:
        assert metric.compute().isnan()
        metric.update(W_dec=first)
        assert metric.compute() == function(first)
        metric.update(W_dec=second)
        assert metric.compute() == (function(first) + function(second)) / 2
        assert not metric.state_dict()
    correlation = WeightCorrelation()
    correlation.update(W_enc=first.T, W_dec=second)
    assert correlation.compute() == weight_correlation(first.T, second)


def test_a_collection_never_takes_two_of_them_for_one():
    """Though their numbers are equal at first."""
    truth = torch.eye(4)
    metrics = MetricCollection([MMCS(truth), MCC(truth)])
    metrics.update(W_dec=truth)
    metrics.update(W_dec=-truth)
    assert {name: value.item() for name, value in metrics.compute().items()} == {"MMCS": 0.5, "MCC": 1.0}


@pytest.mark.parametrize(
    ("truth", "decoder", "said"),
    [((3, 4), (5, 6), "one space"), ((0, 4), (5, 4), "at least one"), ((4,), (5, 4), "as rows")],
)
@pytest.mark.parametrize("function", [mmcs, nearest, one_to_one, mcc])
def test_unusable_shapes_are_said(truth, decoder, said, function):
    with pytest.raises(UserError, match=said):
        function(torch.zeros(truth), torch.zeros(decoder))


def test_unequal_widths_have_no_weight_correlation():
    with pytest.raises(UserError, match="cosines between them need"):
        weight_correlation(torch.zeros(4, 7), torch.zeros(7, 5))
