"""Precision, recall and F1 of latents as detectors of known features."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.errors import UserError
from saelight.metrics import F1, Matching, detection_metrics, nearest, one_to_one
from saelight.metrics.detection import detection, hits


def world(tokens=200, features=9, latents=14, seed=0):
    """Which features are active, latents that know a little of it, and directions of both."""
    gen = torch.Generator().manual_seed(seed)
    active = torch.rand(tokens, features, generator=gen) < torch.linspace(0, 0.6, features)
    f = torch.randn(tokens, latents, generator=gen).relu() * (torch.rand(tokens, latents, generator=gen) < 0.5)
    f[:, :features] += 2 * active
    truth = torch.randn(features, 6, generator=gen)
    return active, f, truth, torch.randn(latents, 6, generator=gen)


def reference(present, fired):
    """Of one pair, by their textbook definitions."""
    hit = (present & fired).sum().item()
    precision, recall = hit / max(1, fired.sum().item()), hit / present.sum().item()
    return precision, recall, 2 * precision * recall / (precision + recall) if hit else 0.0


def values(metrics, active, f, splits=()):
    for part in zip(active.tensor_split(sorted(splits)), f.tensor_split(sorted(splits)), strict=True):
        metrics.update(active=part[0], f=part[1])
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("match", [nearest, one_to_one])
def test_equal_the_textbook(match):
    active, f, truth, decoder = world()
    pairs = match(truth, decoder)
    present, fired = active[:, pairs.feature_P], f[:, pairs.latent_P] != 0
    occurs = present.any(0)
    assert not occurs.all()  # one feature never occurs, and is left out
    expected = [reference(present[:, i], fired[:, i]) for i in occurs.nonzero().flatten()]
    precision, recall, f1 = torch.tensor(expected, dtype=torch.float64).mean(0).tolist()
    assert values(detection_metrics(pairs), active, f) == pytest.approx({"f1": f1, "precision": precision, "recall": recall})
    assert detection(hits(active, f, pairs)).f1_P.isnan().tolist() == (~occurs).tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=6))
def test_any_split_gives_the_same(splits):
    active, f, truth, decoder = world()
    pairs = nearest(truth, decoder)
    assert values(detection_metrics(pairs), active, f, splits) == values(detection_metrics(pairs), active, f)


def test_a_perfect_detector_and_one_that_never_fires():
    active, _, truth, _ = world(features=4)
    active[:, 0] = False
    f = active.double() * 0.3
    pairs = nearest(truth, truth)
    assert values(detection_metrics(pairs), active, f) == {"f1": 1, "precision": 1, "recall": 1}
    assert values(detection_metrics(pairs), active, 0 * f) == {"f1": 0, "precision": 0, "recall": 0}
    always = values(detection_metrics(pairs), active, f + 1)
    assert always["recall"] == 1
    assert always["precision"] == pytest.approx(active[:, 1:].double().mean().item())


def test_magnitudes_stand_for_what_is_active():
    active, f, truth, decoder = world()
    pairs = nearest(truth, decoder)
    assert values(detection_metrics(pairs), 0.1 * active.double(), f) == values(detection_metrics(pairs), active, f)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_a_signed_latent_counts_as_two(seed):
    """One for its direction where it is positive, one for the opposite direction where it is negative."""
    gen = torch.Generator().manual_seed(seed)
    active, f, truth, decoder = world(seed=seed)
    f = f * torch.where(torch.rand(f.shape, generator=gen) < 0.5, -1.0, 1.0)
    pairs = nearest(truth, decoder, signed=True)
    two = nearest(truth, torch.cat([decoder, -decoder]))
    unfolded = values(detection_metrics(two), active, torch.cat([f.relu(), (-f).relu()], 1))
    assert values(detection_metrics(pairs, signed=True), active, f) == unfolded


def test_nothing_seen_is_nan():
    pairs = Matching(torch.arange(3), torch.arange(3), torch.ones(3))
    assert all(value.isnan() for value in detection_metrics(pairs).compute().values())


def test_the_metrics_share_their_counts_and_survive_a_move():
    active, f, truth, decoder = world()
    metrics = detection_metrics(nearest(truth, decoder)).to(torch.bfloat16)
    metrics.update(active=active, f=f)
    assert list(metrics.compute_groups.values()) == [["f1", "precision", "recall"]]
    assert metrics["f1"].fired_P.dtype == torch.int64
    metrics.reset()
    assert metrics["f1"].both_P.sum() == 0


def test_tokens_must_be_the_same():
    pairs = Matching(torch.arange(3), torch.arange(3), torch.ones(3))
    with pytest.raises(UserError, match="the same tokens"):
        F1(pairs).update(active=torch.zeros(4, 3), f=torch.zeros(5, 3))
