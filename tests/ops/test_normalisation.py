"""Units: what rows of a large mean keep of their values."""

import pickle

import pytest
import torch

from saelight.ops.normalisation import Normalisation


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("gamma", [0, 5, 15, 35])
def test_rows_of_a_large_mean_lose_nothing_that_is_stored(dtype, gamma):
    g = torch.Generator().manual_seed(0)
    mean = gamma * torch.randn(64, generator=g)
    x = (mean + torch.randn(512, 64, generator=g)).to(dtype)
    units = Normalisation("standard", 0.7, x.double().mean(0))
    got = units(x)
    assert got.dtype == torch.float32
    # float32 knows the mean to gamma · 2⁻²⁴; bfloat16, to compute in, would be off by gamma / 256.
    exact = units.scale * (x.double() - units.mean_D)
    torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=4e-7 * max(1, gamma))


def test_units_relative_to_others_lead_from_these_to_them():
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(9, 5, generator=g)
    units = [
        Normalisation("standard", 0.3, torch.randn(5, generator=g).double()),
        Normalisation("standard", 2.1, torch.randn(5, generator=g).double()),
        Normalisation("rms", 0.9),
        Normalisation(),
    ]
    for one in units:
        for other in units:
            torch.testing.assert_close(one.relative_to(other)(other(raw)), one(raw))
        same = one.relative_to(one)
        assert same.scale == 1
        assert same.mean_D is None or not same.mean_D.any()


def test_units_come_back_from_their_plain_data():
    units = Normalisation("standard", 0.3, torch.linspace(-1, 1, 5).double())
    x = torch.ones(2, 5)
    units(x)
    for again in (Normalisation.from_plain(units.plain()), pickle.loads(pickle.dumps(units))):
        assert torch.equal(again(x), units(x))
