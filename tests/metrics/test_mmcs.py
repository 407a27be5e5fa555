"""MMCS: against numpy, whatever the block, and its properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.errors import UserError
from saelight.metrics import MMCS, mmcs
from tests.metrics.reference import mmcs as reference


def directions(rows, seed, width=16, dtype=torch.float32):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("block_elements", [1, 100, 2**24])
def test_equals_numpy_whatever_the_block(block_elements):
    truth, decoder = directions(23, 0), directions(31, 1)
    assert mmcs(truth, decoder, block_elements).item() == pytest.approx(reference(truth, decoder), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30), st.integers(0, 2**16))
def test_a_permuted_scaled_copy_is_found_whatever_lies_beside_it(features, others, seed):
    truth = directions(features, seed, dtype=torch.float64)
    scale = 0.1 + torch.rand(features, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
    decoder = torch.cat([directions(others, seed + 1, dtype=torch.float64), (truth * scale)[order]])
    assert mmcs(truth, decoder).item() == pytest.approx(1, rel=1e-12)


def test_an_opposite_direction_is_not_a_match():
    truth = torch.eye(4)
    assert mmcs(truth, -truth).item() == 0
    assert mmcs(truth[:1], -truth[:1]).item() == -1


def test_a_zero_row_matches_nothing_and_a_nan_row_shows():
    decoder = directions(8, 1)
    decoder[0] = 0
    assert mmcs(directions(5, 0), decoder).isfinite()
    decoder[0] = torch.nan
    assert mmcs(directions(5, 0), decoder).isnan()


def test_the_metric_is_the_function():
    truth, decoder = directions(5, 0), directions(8, 1).bfloat16()
    metric = MMCS(truth)
    assert metric.compute().isnan()
    metric.update(W_dec=decoder)
    assert metric.compute() == mmcs(truth, decoder)
    assert not metric.state_dict()


@pytest.mark.parametrize(("truth", "decoder", "said"), [((3, 4), (5, 6), "one space"), ((0, 4), (5, 4), "at least one")])
def test_unusable_shapes_are_said(truth, decoder, said):
    with pytest.raises(UserError, match=said):
        mmcs(torch.zeros(truth), torch.zeros(decoder))
