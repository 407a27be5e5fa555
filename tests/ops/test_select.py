"""What is kept against torch.topk of the whole matrix. B batch, D d_in, F d_sae, E entries."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saelight.ops import select
from saelight.ops.select import above, largest, largest_of_batch, largest_of_each_token, scan

pytestmark = pytest.mark.usefixtures("loops")


def problem(rows: int, d_sae: int, seed: int = 0, d_in: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d_in, generator=g), torch.randn(d_sae, d_in, generator=g).T


def support(entries, places=None) -> torch.Tensor:
    kept = entries if places is None else entries.take(places)
    mask_BF = torch.zeros(entries.tokens, entries.d_sae, dtype=torch.bool)
    mask_BF[kept.rows_E, kept.latents_E] = True
    return mask_BF


def of_each(z_BF: torch.Tensor, k: int) -> torch.Tensor:
    return torch.zeros_like(z_BF, dtype=torch.bool).scatter(1, z_BF.topk(k, dim=1).indices, True)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.integers(1, 9), d_sae=st.integers(1, 300), k=st.integers(1, 300), chunk=st.integers(1, 900), signed=st.booleans()
)
def test_the_largest_of_each_token(rows, d_sae, k, chunk, signed):
    k = min(k, d_sae)
    x_BD, W_DF = problem(rows, d_sae)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "_CHUNK", chunk)
        z_E, entries = scan(x_BD, None, W_DF, None, largest(k), signed)
    by_E = z_E.abs() if signed else z_E
    z_BF = x_BD @ W_DF
    assert torch.equal(support(entries, largest_of_each_token(by_E, entries, k)), of_each(z_BF.abs() if signed else z_BF, k))
    torch.testing.assert_close(z_E, z_BF[entries.rows_E, entries.latents_E], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 100, 960])
def test_the_largest_of_the_batch(n):
    z = torch.randn(960, generator=torch.Generator().manual_seed(0))
    places = largest_of_batch(z, n)
    assert torch.equal(torch.arange(960) if places is None else places, z.topk(n).indices.sort().values)


def test_equal_values_do_not_add_to_the_number(loops):
    z = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0, 3.0])
    places = largest_of_batch(z, 3)
    assert torch.equal(z[places], torch.tensor([2.0, 2.0, 3.0]))
    assert loops == "triton" or places.tolist() == [1, 2, 5]  # of equal ones the first
    x_BD, W_DF = torch.ones(3, 4), torch.ones(4, 50)
    z_E, entries = scan(x_BD, None, W_DF, None, largest(2))
    assert support(entries, largest_of_each_token(z_E, entries, 2)).sum(1).tolist() == [2, 2, 2]


RULES = {"one bound": above(torch.tensor(0.0)), "each its own": above(torch.zeros(64)), "largest": largest(4)}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_nan_is_always_kept(rule):
    x_BD, W_DF = problem(5, 64)
    W_DF[:, 11] = torch.nan
    z_E, entries = scan(x_BD, None, W_DF, None, rule)
    assert support(entries)[:, 11].all()
    assert z_E.isnan().sum() == 5


def test_half_precision_finds_the_support_of_float32():
    x_BD, W_DF = problem(200, 1024, d_in=64)
    with torch.autocast("cpu", torch.bfloat16):
        z_E, entries = scan(x_BD, None, W_DF, None, largest(16))
    assert z_E.dtype == torch.float32
    z_BF = x_BD @ W_DF
    torch.testing.assert_close(z_E, z_BF[entries.rows_E, entries.latents_E], rtol=1e-5, atol=1e-5)
    assert torch.equal(support(entries, largest_of_each_token(z_E, entries, 16)), of_each(z_BF, 16))
    rounded = x_BD.bfloat16() @ W_DF.bfloat16()
    assert not torch.equal(of_each(rounded, 16), of_each(z_BF, 16))  # half precision alone would not


def test_too_many_equal_values_fall_back():
    x_BD, W_DF = torch.zeros(3, 4), torch.ones(4, 400)
    z_E, entries = scan(x_BD, None, W_DF, None, largest(2))
    assert support(entries, largest_of_each_token(z_E, entries, 2)).sum(1).tolist() == [2, 2, 2]
