"""Every metric made of tokens: against numpy, under any split, in half precision, on odd input."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.errors import UserError
from saelight.metrics import (
    FVU,
    L0,
    Dead,
    Density,
    ExplainedVariance,
    ExplainedVariancePerToken,
    density_histogram,
    functional,
    token_metrics,
)
from tests.metrics.reference import COUNTED, D, F, batch, values
from tests.metrics.reference import metrics as reference


def assert_equal(ours, wanted):
    """Up to rounding; the median up to half a bin."""
    for name, value in wanted.items():
        assert ours[name] == pytest.approx(value, rel=10**0.001 - 1 if name == "fvu_median" else 1e-12)
    assert ours.keys() == wanted.keys()


@pytest.mark.parametrize("signed", [False, True])
def test_all_equal_numpy(signed):
    data = batch(signed=signed)
    mean = data["x"].mean(0)
    assert_equal(values(data, mean=mean), reference(**data, mean=mean.double().numpy()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=6))
def test_any_split_gives_the_same(splits):
    """Empty batches included. Counts are equal; float sums differ in their last bits only."""
    whole, parts = values(batch()), values(batch(), splits)
    assert {k: parts[k] for k in COUNTED} == {k: whole[k] for k in COUNTED}
    assert parts == pytest.approx(whole, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_tokens_does_not_matter(random):
    order = list(range(300))
    random.shuffle(order)
    shuffled = {name: t[order] for name, t in batch().items()}
    assert values(shuffled) == pytest.approx(values(batch()), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**16))
def test_firing_counts_are_exact(tokens, seed):
    """Across the 255 rows that a byte can count, all-firing columns included."""
    f = batch(tokens, seed)["f"]
    f[:, -1] = 1
    assert torch.equal(functional.firing_counts(f), (f != 0).sum(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(0, 2**16))
def test_shares_are_shares(tokens, seed):
    result = values(batch(tokens, seed))
    assert 0 <= result["dead"] <= 1
    assert result["dense"] >= 0
    assert result["dense"] + result["dead"] <= 1 + 1e-12


def test_fvu_of_the_mean_is_one_and_of_a_perfect_copy_zero():
    x = batch()["x"].double()
    mean = x.mean(0).expand_as(x)
    assert values({"x": x, "x_hat": mean, "f": x})["fvu"] == pytest.approx(1, rel=1e-12)
    perfect = values({"x": x, "x_hat": x, "f": x})
    assert perfect["fvu"] == perfect["fvu_median"] == 0
    assert perfect["explained_variance_centered"] == perfect["explained_variance_per_token"] == 1
    assert perfect["cosine"] == pytest.approx(1)


def test_the_median_is_the_ordinary_tokens_whatever_a_few_long_ones_are():
    data = batch(3000)
    for t in (data["x"], data["x_hat"]):
        t -= data["x"].mean(0)
    ordinary = values(data)
    assert ordinary["fvu"] == pytest.approx(ordinary["fvu_median"], rel=0.2)
    long = {"x": torch.full((24, D), 300.0), "x_hat": torch.full((24, D), 299.0), "f": torch.ones(24, F)}
    with_sinks = values({name: torch.cat([t, long[name]]) for name, t in data.items()})
    assert with_sinks["fvu"] < 0.02 * ordinary["fvu"]
    assert with_sinks["fvu_median"] == pytest.approx(ordinary["fvu_median"], rel=0.02)


def test_ratios_beyond_the_scale_are_none_and_infinite():
    x = torch.ones(5, D, dtype=torch.float64)
    assert values({"x": x, "x_hat": x + 1e-6, "f": x})["fvu_median"] == 0
    assert values({"x": x, "x_hat": x + 1e3, "f": x})["fvu_median"] == torch.inf


def test_a_constant_error_costs_fvu_but_not_the_centered_variance():
    x = batch()["x"].double()
    result = values({"x": x, "x_hat": x + 1, "f": x})
    assert result["fvu"] > 0.5
    assert result["explained_variance_centered"] == pytest.approx(1, rel=1e-12)


def test_tokens_at_the_centre_have_no_variance_to_explain_and_are_left_out():
    data = batch()
    data["x"][[3, 150]] = data["x"][7].clone()
    away = [i for i in range(300) if i not in (3, 7, 150)]
    rest = {name: t[away] for name, t in data.items()}
    mean = data["x"][7].clone()
    key = "explained_variance_per_token"
    assert values(data, [100], mean=mean)[key] == pytest.approx(values(rest, mean=mean)[key], rel=1e-12)
    only = {name: t[[3, 7]] for name, t in data.items()}
    assert torch.tensor(values(only, mean=mean)[key]).isnan()


def test_shrinkage_shows_in_the_ratio_and_the_bias():
    x = batch()["x"].double()
    for scale in (0.5, 1.0, 2.0):
        result = values({"x": x, "x_hat": scale * x, "f": x})
        assert result["l2_ratio"] == pytest.approx(scale, rel=1e-12)
        assert result["reconstruction_bias"] == pytest.approx(scale, rel=1e-12)
    # A projection misses energy, so that it is shorter than x; no multiple of it is a better reconstruction.
    projected = values({"x": x, "x_hat": torch.cat([x[:, :6], torch.zeros(len(x), 6)], 1), "f": x})
    assert projected["l2_ratio"] < 0.8
    assert projected["reconstruction_bias"] == pytest.approx(1, rel=1e-12)


def test_zero_activations_have_no_ratio():
    data = batch()
    data["x"][:10] = 0
    rest = {name: t[10:] for name, t in data.items()}
    assert values(data, [4])["l2_ratio"] == pytest.approx(values(rest)["l2_ratio"], rel=1e-12)
    nothing = values({"x": data["x"][:10], "x_hat": data["x"][:10], "f": data["f"][:10]})
    assert torch.tensor([nothing["l2_ratio"], nothing["reconstruction_bias"]]).isnan().all()
    assert nothing["cosine"] == 0


def test_half_precision_is_widened_before_any_sum():
    """bf16 sums of 5,000 tokens would stop growing at 256."""
    data = {name: t.bfloat16() for name, t in batch(5000).items()}
    expected = reference(**{name: t.double().numpy() for name, t in data.items()})
    assert_equal(values(data, range(0, 5000, 64)), expected)


def test_the_module_that_holds_them_cannot_narrow_them():
    module = torch.nn.ModuleDict({"fvu": FVU(D), "l0": L0(F)}).to(torch.bfloat16).half()
    assert module["fvu"].x_D.dtype == module["l0"].magnitude.dtype == torch.float64
    assert module["l0"].fired_F.dtype == torch.int64


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["x", "x_hat", "f"])
def test_one_bad_number_shows_in_every_metric_that_reads_it(where, bad):
    data = batch()
    data[where][7, 3] = bad
    result = values(data, [100])
    reads = {"l0", "l1", "dead", "dense"} if where == "f" else result.keys() - {"l0", "l1", "dead", "dense"}
    assert {name for name, value in result.items() if not torch.tensor(value).isfinite()} == reads


def test_nothing_seen_is_nan_without_a_warning():
    result = token_metrics(D, F).compute()
    assert all(value.isnan() for value in result.values())
    assert Density(F).compute().isnan().all()


def test_no_variance_at_all():
    x = torch.full((5, D), 0.1)
    assert functional.fvu(functional.moment_sums(x, x)).isnan()
    assert functional.fvu(functional.moment_sums(x, x + 1)).isposinf()


def test_families_share_their_sums_and_only_those():
    metrics = token_metrics(D, F)
    metrics.update(**batch())
    groups = [set(group) for group in metrics.compute_groups.values()]
    assert {"l0", "l1", "dead", "dense"} in groups
    assert {"fvu", "explained_variance", "explained_variance_centered"} in groups
    assert {"explained_variance_per_token", "fvu_median"} in groups
    assert {"cosine", "l2_ratio", "reconstruction_bias"} in groups
    assert len(groups) == 4
    metrics.reset()
    metrics.update(**batch(seed=1))
    assert metrics["cosine"].compute() == pytest.approx(reference(**batch(seed=1))["cosine"])


def test_a_collection_finds_the_same_groups_by_itself():
    from torchmetrics import MetricCollection

    metrics = MetricCollection([FVU(D), ExplainedVariance(D), ExplainedVariancePerToken(), L0(F), Dead(F)])
    metrics.update(**batch())
    groups = sorted(sorted(group) for group in metrics.compute_groups.values())
    assert groups == [["Dead", "L0"], ["ExplainedVariance", "FVU"], ["ExplainedVariancePerToken"]]


def test_forward_gives_the_batch_and_keeps_the_whole():
    metric, first, second = FVU(D), batch(seed=1), batch(seed=2)
    for data in (first, second):
        assert metric(x=data["x"], x_hat=data["x_hat"]).item() == pytest.approx(reference(**data)["fvu"])
    both = {name: torch.cat([first[name], second[name]]) for name in first}
    assert metric.compute().item() == pytest.approx(reference(**both)["fvu"], rel=1e-12)


def test_states_survive_pickling():
    metric = Dead(F)
    metric.update(f=batch()["f"])
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_density_and_its_histogram():
    f = torch.zeros(1000, 4)
    f[:1, 1], f[:10, 2], f[:, 3] = 1, 1, 1
    density = Density(4)
    density.update(f=f)
    assert density.compute().tolist() == [0, 0.001, 0.01, 1]
    histogram = density_histogram(density.compute())
    assert histogram.silent == 1
    assert histogram.counts.sum() == 3
    assert histogram.counts[-1] == 1  # a latent that always fires is in the last bin
    assert len(histogram.edges) == len(histogram.counts) + 1


def test_wrong_shapes_are_said():
    x = torch.zeros(4, D)
    with pytest.raises(UserError, match="one reconstruction per token"):
        FVU(D).update(x=x, x_hat=x[:1])
    with pytest.raises(UserError, match="flatten it"):
        L0(F).update(f=torch.zeros(2, 3, F))
    with pytest.raises(UserError, match="f has 7 latents and the metric 40"):
        L0(F).update(f=torch.zeros(2, 7))
    with pytest.raises(UserError, match="x has width 7 and the metric 12"):
        FVU(D).update(x=x[:, :7], x_hat=x[:, :7])
    with pytest.raises(UserError, match="give the mean"):
        ExplainedVariancePerToken(torch.zeros(D + 1)).update(x=x, x_hat=x)
