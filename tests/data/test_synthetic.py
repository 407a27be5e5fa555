"""Synthetic activations: a pure function of their settings, with the statistics asked for."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from saelight.data.datamodule import SyntheticDataModule
from saelight.data.synthetic import SyntheticRows
from saelight.errors import UserError


def read(rows, start=0, n=None):
    out = torch.empty(rows.n_rows if n is None else n, rows.d_in)
    rows.read(start, out)
    return out


def firing(rows):
    """Which features fired: d_in = n_features and orthogonal directions make rows readable."""
    directions = torch.linalg.qr(rows.features.double())[0].float()
    rows.__dict__["features"] = directions
    return (read(rows) @ directions.T).abs() > 1e-4


def test_any_range_is_a_pure_function_of_the_settings():
    settings = {"rows": 3000, "d_in": 16, "n_features": 40, "noise": 0.1, "correlation": 0.3, "seed": 4}
    whole = read(SyntheticRows(**settings))
    for start, n in [(0, 1), (511, 2), (1000, 1500), (2999, 1)]:
        assert torch.equal(read(SyntheticRows(**settings), start, n), whole[start : start + n])
    assert torch.equal(read(pickle.loads(pickle.dumps(SyntheticRows(**settings)))), whole)
    assert not torch.equal(read(SyntheticRows(**settings | {"seed": 5})), whole)


def test_the_same_on_any_number_of_threads():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(read(SyntheticRows(rows=1024, noise=0.1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_directions_are_unit_vectors():
    features = SyntheticRows(rows=1, d_in=24, n_features=100).features
    assert features.shape == (100, 24)
    assert torch.allclose(features.norm(dim=1), torch.ones(100))


@pytest.mark.parametrize(("n", "l0", "zipf"), [(256, 8, 0.5), (64, 60, 2.0), (10, 10, 1.0), (100, 5, 0.0)])
def test_frequencies_follow_zipf_and_sum_to_l0(n, l0, zipf):
    p = SyntheticRows(rows=1, n_features=n, mean_l0=l0, zipf_exponent=zipf).frequencies
    assert p.sum() == pytest.approx(l0)
    assert (p <= 1).all()
    free = p[p < 1]
    if len(free) > 1:
        ranks = np.arange(n - len(free), n) + 1.0
        assert np.allclose(free / free[0], (ranks / ranks[0]) ** -zipf)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_features_fire_as_often_and_as_jointly_as_asked(correlation):
    rows = SyntheticRows(rows=20_000, d_in=24, n_features=24, mean_l0=6, correlation=correlation, group_size=4)
    fired = firing(rows)
    p = rows.frequencies
    assert np.allclose(fired.float().mean(0), p, atol=0.02)
    both = (fired[:, 0] & fired[:, 1]).float().mean().item()
    joint = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    assert both == pytest.approx(joint.cdf([norm.ppf(p[0]), norm.ppf(p[1])]), abs=0.015)
    apart = (fired[:, 0] & fired[:, 5]).float().mean().item()
    assert apart == pytest.approx(p[0] * p[5], abs=0.015)


def test_many_features_fire_as_often_and_as_independently_as_asked():
    """Above 4,096 features the draw is another one; its law is not."""
    rows = SyntheticRows(rows=20_480, d_in=4, n_features=5000, mean_l0=60, zipf_exponent=1.2)
    fired = rows.active(0, rows.rows)
    p = rows.frequencies
    assert p[0] == 1
    error = (fired.double().mean(0).numpy() - p) / np.sqrt(p * (1 - p) / rows.rows).clip(1e-12)
    assert fired[:, p == 1].all()
    assert abs(error[p > 0.001]).max() < 5
    assert error[p > 0.001].std() == pytest.approx(1, abs=0.1)
    per_row = fired[:, p < 1].sum(1).double()  # a sum of independent draws, row after row
    assert per_row.var() == pytest.approx((p * (1 - p)).sum(), rel=0.05)
    both = (fired[:, 10] & fired[:, 11]).double().mean().item()
    assert both == pytest.approx(p[10] * p[11], abs=5 * np.sqrt(p[10] * p[11] / rows.rows))


@pytest.mark.parametrize("features", [40, 5000])
def test_active_features_make_up_their_rows(features):
    rows = SyntheticRows(rows=1500, d_in=16, n_features=features, mean_l0=3, magnitude_std=0)
    active = rows.active(700, 800)
    assert torch.allclose(active.float() @ rows.features, read(rows, 700, 800), atol=1e-5)
    assert torch.equal(rows.active(1023, 2), active[323:325])


def test_magnitudes_and_noise():
    rows = SyntheticRows(rows=20_000, d_in=8, n_features=1, mean_l0=1, magnitude_mean=2, magnitude_std=0.5)
    size = read(rows) @ rows.features[0]
    assert size.mean() == pytest.approx(2, abs=0.02)
    assert size.std() == pytest.approx(0.5, abs=0.02)
    noisy = read(SyntheticRows(rows=20_000, d_in=8, n_features=1, mean_l0=1e-9, noise=0.3))
    assert noisy.std() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    "bad",
    [
        {"d_in": 0},
        {"n_features": 0},
        {"mean_l0": 0},
        {"mean_l0": 300},
        {"correlation": 1.0},
        {"noise": -1},
        {"group_size": 0},
        {"rows": 0},
        {"val_rows": -1},
        {"seed": -1},
        {"zipf_exponent": float("nan")},
    ],
)
def test_impossible_settings_get_one_line(bad):
    with pytest.raises(UserError, match=f"data.{next(iter(bad))}"):
        SyntheticDataModule(**bad)


def test_data_module():
    data = SyntheticDataModule(rows=5000, val_rows=700, d_in=16, n_features=32, mean_l0=3, batch_size=512)
    assert (data.d_in, data.n_train_rows, data.n_val_rows) == (16, 5000, 700)
    assert data.features.shape == (32, 16)
    x = data.normalisation(read(data.opened.rows, 0, 5000))
    assert x.square().sum(1).mean() == pytest.approx(16, rel=0.03)
    assert len(data.train_dataloader()) == 5000 // 512
    assert sum(len(b) for b in data.val_dataloader()) == 700
    assert sum(len(b) for b in data.predict_dataloader()) == 5700
    again = SyntheticDataModule(rows=5000, val_rows=700, d_in=16, n_features=32, mean_l0=3, batch_size=512)
    assert (again.normalisation.scale, again.fingerprint) == (data.normalisation.scale, data.fingerprint)


def test_silence_cannot_be_normalised():
    with pytest.raises(UserError, match="normalise standard is impossible"):
        SyntheticDataModule(rows=600, val_rows=0, magnitude_mean=0, magnitude_std=0)
