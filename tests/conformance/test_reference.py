"""The references themselves: finite differences where the objective is smooth, a jittered batch where it jumps.

B batch, D d_in, O d_out, F d_sae.
"""

import pytest
import torch
from torch import Tensor

from tests.conformance.reference import ENCODERS, REFERENCES, Weights
from tests.conformance.reference.hard_concrete import eval_gates, noisy_gates, open_probability
from tests.conformance.reference.training import (
    annealed_coefficient,
    annealed_p,
    prefix_law,
    resample,
    resampling_law,
    threshold_average,
)

B, D, OUT, F = 6, 5, 4, 9
DEAD = torch.arange(F) % 3 == 0
TOP = {"k": 3, "k_aux": 2, "dead": DEAD}
PREFIXES = [2, 5, F]
# Nothing lies this close to a threshold, so that the pseudo-derivatives are 0 and differences see all there is.
NARROW = {"coefficient": 0.3, "bandwidth": 1e-12}
LOSS_ON_DEAD = {"dead": DEAD, "pre_activation_coefficient": 0.2}


def uniform(*shape: int) -> Tensor:
    return 0.02 + 0.96 * torch.rand(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


NOISE = {"noise": uniform(B, F), "beta": 0.7}
BIASES = {
    "gated": ["r_mag", "b_gate", "b_mag"],
    "gated_hard_concrete": ["r_mag", "b_gate", "b_mag"],
    "hard_concrete": ["b_enc", "b_mag"],
    "jumprelu": ["b_enc", "log_threshold"],
}
CASES = {
    "relu": ("relu", {"coefficient": 0.3}),
    "relu-p": ("relu", {"coefficient": 0.3, "p": 0.5}),
    "gated": ("gated", {"coefficient": 0.3, "aux_coefficient": 0.7}),
    "hard-concrete": ("hard_concrete", {"coefficient": 0.3, **NOISE}),
    "hard-concrete-global": ("hard_concrete", {"coefficient": 0.3, **NOISE}),
    "gated-hard-concrete": ("gated_hard_concrete", {"coefficient": 0.3, "aux_coefficient": 0.7, **NOISE}),
    "topk": ("topk", TOP),
    "topk-alive": ("topk", TOP | {"dead": torch.zeros(F, dtype=torch.bool)}),
    "abs-topk": ("abs_topk", TOP),
    "batch-topk": ("batch_topk", TOP),
    "jumprelu-step": ("jumprelu", {"penalty": "step", **NARROW, **LOSS_ON_DEAD}),
    "jumprelu-tanh": ("jumprelu", {"penalty": "tanh", **NARROW}),
    "jumprelu-target": ("jumprelu", {"penalty": "target", "target_l0": 2.5, **NARROW, **LOSS_ON_DEAD}),
    "matryoshka-topk": ("matryoshka", {"base": "topk", "prefixes": PREFIXES, **TOP}),
    "matryoshka-batch-topk": ("matryoshka", {"base": "batch_topk", "prefixes": PREFIXES, **TOP}),
    "matryoshka-relu": ("matryoshka", {"base": "relu", "prefixes": PREFIXES, "coefficient": 0.3}),
    "matryoshka-jumprelu": ("matryoshka", {"base": "jumprelu", "prefixes": PREFIXES, "penalty": "tanh", **NARROW}),
    "matching-pursuit": ("matching_pursuit", {"k": 3}),
}
STOPPED = {"gated", "gated_hard_concrete", "topk", "abs_topk", "batch_topk"}
SIDES = ["autoencoder", "transcoder", "skip"]


def sides(side: str, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(B, D, generator=g, dtype=torch.float64)
    return x, None if side == "autoencoder" else torch.randn(B, OUT, generator=g, dtype=torch.float64)


def weights(case: str, side: str) -> Weights:
    variant, settings = CASES[case]
    g = torch.Generator().manual_seed(1)
    width = D if side == "autoencoder" else OUT
    shapes = {"W_dec": (F, width), "b_dec": (width,)}
    if variant != "matching_pursuit":
        shapes["W_enc"] = (D, F)
        shapes |= dict.fromkeys(BIASES.get(settings.get("base", variant), ["b_enc"]), (F,))
    if case == "hard-concrete-global":
        shapes["log_alpha"] = shapes.pop("b_enc")
    if side == "skip":
        shapes["W_skip"] = (D, OUT)
    w = {name: 0.5 * torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    if variant == "matching_pursuit":
        w["W_dec"] = torch.nn.functional.normalize(w["W_dec"], dim=1)
    return w


RUNS = [(case, side) for case in CASES for side in SIDES if case != "matching-pursuit" or side == "autoencoder"]


@pytest.mark.parametrize(("case", "side"), RUNS)
def test_gradients_equal_differences_of_the_loss(case, side):
    variant, settings = CASES[case]
    x, y = sides(side)
    w = weights(case, side)
    if settings.get("base", variant) in STOPPED:
        settings = settings | {"held": w}
    found = REFERENCES[variant](x, y, w, **settings)
    assert found.gradients.keys() == w.keys()
    g = torch.Generator().manual_seed(2)
    for name in w:
        direction = torch.nn.functional.normalize(torch.randn(w[name].shape, generator=g, dtype=torch.float64), dim=0)
        ahead, behind = (
            REFERENCES[variant](x, y, w | {name: w[name] + h * direction}, **settings).loss for h in (1e-6, -1e-6)
        )
        expected = (ahead - behind) / 2e-6
        torch.testing.assert_close((found.gradients[name] * direction).sum(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_case_is_worth_testing(case):
    """Some latents fire and some do not: an objective that is 0 everywhere would agree with anything."""
    variant, settings = CASES[case]
    x, y = sides("autoencoder")
    found = REFERENCES[variant](x, y, weights(case, "autoencoder"), **settings)
    assert 0 < (found.latents != 0).double().mean() < 1
    assert all(gradient.any() for name, gradient in found.gradients.items() if name != "log_threshold")


@pytest.mark.parametrize("penalty", ["step", "tanh", "target"])
@pytest.mark.parametrize("prefixes", [None, [1, 3]])
def test_jumps_pseudo_derivatives_are_those_of_a_jittered_batch(penalty, prefixes):
    """Spread evenly over the kernel's width, a batch turns the jump into a ramp whose slope differences can measure.

    The rows' target is one and the same, and latent 0 is the one that straddles its threshold. Threshold and kernel
    are small: the error is quadratic in f, for which the paper's estimate is exact, but the tanh is so only near 0.
    """
    theta, width, rows = 1e-3, 1e-6, 2000
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, generator=g, dtype=torch.float64).expand(rows, 3).clone()
    y = torch.randn(1, 4, generator=g, dtype=torch.float64).expand(rows, 4)
    x[:, 0] = theta + width * ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows - 0.5)
    w = {
        "W_enc": torch.eye(3, dtype=torch.float64),
        "b_enc": torch.zeros(3, dtype=torch.float64),
        "log_threshold": torch.tensor([theta, 0.01, 0.02], dtype=torch.float64).log(),
        "W_dec": torch.randn(3, 4, generator=g, dtype=torch.float64),
        "b_dec": torch.randn(4, generator=g, dtype=torch.float64),
    }
    settings = {"coefficient": 0.5, "penalty": penalty, "bandwidth": width, "target_l0": 1.2, "prefixes": prefixes}

    def loss(name: str, by: float) -> Tensor:
        moved = w[name].clone()
        moved[0] += by
        return REFERENCES["jumprelu"](x, y, w | {name: moved}, **settings).loss

    found = REFERENCES["jumprelu"](x, y, w, **settings).gradients
    by = width / 4
    slope = (loss("log_threshold", by / theta) - loss("log_threshold", -by / theta)) / (2 * by / theta)
    assert slope.abs() > 0.1
    torch.testing.assert_close(found["log_threshold"][0], slope, rtol=2e-3, atol=0)
    slope = (loss("b_enc", by) - loss("b_enc", -by)) / (2 * by)
    if penalty == "tanh":
        torch.testing.assert_close(found["b_enc"][0], slope, rtol=2e-3, atol=0)
    else:
        assert found["b_enc"][0].abs() < 0.01 * slope.abs()


@pytest.mark.parametrize("penalty", ["step", "target"])
def test_only_the_threshold_feels_the_kernel(penalty):
    x, y = sides("autoencoder")
    w = weights("jumprelu-step", "autoencoder")
    settings = {"coefficient": 0.3, "penalty": penalty, "target_l0": 2.5}
    narrow, wide = (REFERENCES["jumprelu"](x, y, w, bandwidth=b, **settings) for b in (1e-12, 1.0))
    assert narrow.loss == wide.loss
    assert wide.gradients["log_threshold"].any()
    for name in w.keys() - {"log_threshold"}:
        assert torch.equal(narrow.gradients[name], wide.gradients[name])


@pytest.mark.parametrize("beta", [0.3, 2 / 3, 1.0])
def test_expected_l0_is_the_share_of_noise_that_opens_the_gate(beta):
    log_alpha = torch.linspace(-4, 4, 9, dtype=torch.float64)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    share = (noisy_gates(log_alpha, u[:, None], beta) > 0).double().mean(0)
    torch.testing.assert_close(open_probability(log_alpha, beta), share, rtol=0, atol=1e-5)


def test_eval_gates_are_the_noisy_ones_at_the_median():
    log_alpha = torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(eval_gates(log_alpha), noisy_gates(log_alpha, torch.full((9,), 0.5).double(), 1.0))


def test_pursuit_stops():
    identity = {"W_dec": torch.eye(4).double(), "b_dec": torch.zeros(4).double()}

    def latents(x: list[float], k: int, w: Weights = identity) -> list[float]:
        return ENCODERS["matching_pursuit"](torch.tensor([x]).double(), None, w, k=k)[0].tolist()

    assert latents([3, 1, 2, 0.5], 2) == [3, 0, 2, 0]
    assert latents([3, -1, -2, -0.5], 4) == [3, 0, 0, 0], "no direction points along what is left"
    assert latents([3, 0.25, 0, 0], 4) == [3, 0, 0, 0], "less than 1 % is left"
    assert latents([3, 0.5, 0, 0], 4) == [3, 0.5, 0, 0]
    assert latents([0, 0, 0, 0], 4) == [0, 0, 0, 0]
    # A direction taken is spent when the rows are unit; shorter ones leave some of it and would be taken again.
    short = {"W_dec": 0.5 * torch.eye(4).double(), "b_dec": torch.zeros(4).double()}
    assert latents([3, 1, 0, 0], 4, short) == [1.5, 0, 0, 0]


def test_batch_topk_threshold():
    parts = [torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([[4.0, 0.0]])]
    assert threshold_average([parts]) == (pytest.approx(0.9 * 3.0), 1)
    assert threshold_average([parts, [torch.zeros(1, 2)]]) == (pytest.approx(0.9 * 3.0), 1)
    assert threshold_average([parts, parts[:1]]) == (pytest.approx(2 / 11 * 2.7 + 9 / 11 * 2.0), 2)
    threshold, t = threshold_average([parts] * 20_000)
    assert (threshold, t) == (pytest.approx(3.0), 20_000)
    assert ENCODERS["batch_topk"](
        torch.tensor([[1.0, 4.0]]).double(),
        None,
        {name: torch.eye(2).double() for name in ("W_enc", "W_dec")}
        | {name: torch.zeros(2).double() for name in ("b_enc", "b_dec")},
        threshold=threshold,
    ).tolist() == [[0.0, 4.0]]


def test_annealing_p_leaves_the_loss_where_it_was():
    w = weights("relu", "autoencoder")
    x, _ = sides("autoencoder")
    latents = ENCODERS["relu"](x, None, w)
    p = annealed_p(0.2, 4)
    assert p == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    coefficient = annealed_coefficient(0.3, [latents], w, p[1], p[2])
    assert coefficient != pytest.approx(0.3)
    before, after = (REFERENCES["relu"](x, None, w, coefficient=c, p=q).loss for c, q in ((0.3, p[1]), (coefficient, p[2])))
    torch.testing.assert_close(before, after)


def test_prefix_law():
    law = prefix_law(100)
    torch.testing.assert_close(law.sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(law[:11].sum(), torch.tensor(1 / 3).double())  # √11 / √99


@pytest.mark.parametrize("side", SIDES)
def test_resampled_latents_point_at_their_inputs(side):
    x, y = sides(side)
    w = weights("relu", side)
    law = resampling_law(x, y, w)
    torch.testing.assert_close(law.sum(), torch.tensor(1.0).double())
    new = resample(x, y, w, DEAD, [4, 1, 2])
    alive = ~DEAD
    assert torch.equal(new["W_dec"][alive], w["W_dec"][alive])
    assert torch.equal(new["W_enc"][:, alive], w["W_enc"][:, alive])
    assert not new["b_enc"][DEAD].any()
    torch.testing.assert_close(new["W_dec"][DEAD].norm(dim=1), torch.ones(3).double())
    lengths = new["W_enc"][:, DEAD].norm(dim=0)
    torch.testing.assert_close(lengths, 0.2 * w["W_enc"][:, alive].norm(dim=0).mean().expand(3))
    # Each fires for its input most of all that it could be shown at that length.
    inputs = x - w["b_dec"] if y is None else x
    fired = ENCODERS["relu"](x, y, new)[[4, 1, 2], DEAD.nonzero().flatten()]
    torch.testing.assert_close(fired, lengths * inputs[[4, 1, 2]].norm(dim=1))
