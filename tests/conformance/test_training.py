"""What changes over training beside the weights, and evaluation against training.

B batch, D d_in, F d_sae.
"""

from itertools import pairwise

import pytest
import torch
from scipy import stats

from saelight.saes import (
    BatchTopK,
    GatedHardConcrete,
    HardConcrete,
    Matryoshka,
    Moment,
    ReLU,
    TopK,
)
from saelight.schedules import Horizon
from tests.conformance.objectives import MOMENT, assert_agrees, batch, built, expected, settings, weights
from tests.conformance.reference import REFERENCES, hard_concrete
from tests.conformance.reference.training import (
    annealed_coefficient,
    annealed_p,
    prefix_law,
    resample,
    resampling_law,
    threshold_average,
)
from tests.support.activations import sparse_activations

HORIZON = Horizon(100, 100, 64)
HARD = {
    "input-dependent": HardConcrete(d_sae=24, sparsity=0.1),
    "free": HardConcrete(d_sae=24, sparsity=0.1, input_dependent=False),
    "gated": GatedHardConcrete(d_sae=24, sparsity=0.1),
}
hard = pytest.mark.parametrize("config", HARD.values(), ids=HARD)


def logits(sae, x):
    if isinstance(sae.config, GatedHardConcrete):
        return (x - sae.b_dec) @ sae.W_enc + sae.b_gate
    return hard_concrete.gate_logits(x, None, weights(sae))


@pytest.mark.parametrize("matryoshka", [False, True])
def test_batch_topk_threshold_follows_the_smallest_kept_value(matryoshka):
    """Of two ranks, whose measurements are averaged."""
    config = BatchTopK(d_sae=24, k=3)
    sae = built(Matryoshka(d_sae=24, base=BatchTopK(k=3)) if matryoshka else config)
    steps = []
    for step in range(30):
        xs = [sparse_activations(16, seed=2 * step + rank).double() for rank in range(2)]
        measured = [sae.losses(x, x, Moment(step, HORIZON, rank=r)).measured for r, x in enumerate(xs)]
        sae.absorb(torch.stack(measured).mean(0), Moment(step, HORIZON))
        steps.append([expected(config, sae, x, None).latents * sae.W_dec.detach().norm(dim=1) for x in xs])
    threshold, updates = threshold_average(steps)
    assert float(sae.threshold) == pytest.approx(threshold, rel=1e-6)
    assert int(sae.threshold_updates) == updates == 30


def test_batch_topk_threshold_ignores_batches_in_which_nothing_fires():
    sae = built(BatchTopK(d_sae=24, k=3))
    x = sparse_activations(16).double()
    sae.absorb(sae.losses(x, x, MOMENT).measured, MOMENT)
    before = float(sae.threshold)
    with torch.no_grad():
        sae.b_enc.fill_(-1e3)
    sae.absorb(sae.losses(x, x, MOMENT).measured, MOMENT)
    assert float(sae.threshold) == before > 0


def test_batch_topk_keeps_as_many_latents_in_evaluation():
    sae = built(BatchTopK(d_sae=40, k=4))
    for step in range(50):
        x = sparse_activations(256, seed=step).double()
        sae.absorb(sae.losses(x, x, Moment(step, HORIZON)).measured, Moment(step, HORIZON))
    x = sparse_activations(4096, seed=99).double()
    assert (sae.encode(x) > 0).double().sum(1).mean() == pytest.approx(4, rel=0.05)
    # Unlike training, a token's latents do not depend on its neighbours.
    torch.testing.assert_close(sae.encode(x[:1]), sae.encode(x)[:1])


@hard
def test_evaluation_has_no_noise(config):
    sae = built(config)
    x, _ = batch("autoencoder")
    f = sae.encode(x)
    torch.manual_seed(1)
    assert torch.equal(sae.train().encode(x), f)
    assert torch.equal(sae.eval().encode(x), f)
    magnitudes = hard_concrete.gated_magnitudes if isinstance(config, GatedHardConcrete) else relu_magnitudes
    torch.testing.assert_close(f, hard_concrete.eval_gates(logits(sae, x)) * magnitudes(x, None, weights(sae)))


def relu_magnitudes(x, y, w):
    return torch.clamp((x - w["b_dec"]) @ w["W_enc"] + w["b_mag"], min=0)


@hard
def test_noise_is_uniform_and_a_function_of_where_training_stands(config):
    sae = config.build(16, seed=3)
    like_BF = torch.empty(400, 24)
    noise = sae.noise(like_BF, MOMENT)
    assert ((noise > 0) & (noise < 1)).all()
    assert stats.kstest(noise.flatten().numpy(), "uniform").pvalue > 0.001
    torch.manual_seed(1)
    assert torch.equal(sae.noise(like_BF, MOMENT), noise)
    others = [MOMENT._replace(step=51), MOMENT._replace(micro_batch=1), MOMENT._replace(rank=1)]
    draws = [noise, *(sae.noise(like_BF, m) for m in others), config.build(16, seed=4).noise(like_BF, MOMENT)]
    correlations = torch.corrcoef(torch.stack(draws).flatten(1)) - torch.eye(len(draws))
    assert correlations.abs().max() < 0.05


@hard
def test_noise_opens_as_many_gates_as_the_penalty_expects(config):
    sae = built(config)
    x, _ = batch("autoencoder", 64)
    log_alpha = logits(sae, x).detach()
    open_BF = hard_concrete.open_probability(log_alpha, config.initial_beta)
    l0 = torch.stack(
        [
            (hard_concrete.noisy_gates(log_alpha, sae.noise(log_alpha, Moment(s, HORIZON)), config.initial_beta) > 0).sum()
            for s in range(100)
        ]
    )
    error = ((open_BF * (1 - open_BF)).sum() * len(l0)).sqrt()
    assert (l0.sum() - len(l0) * open_BF.sum()).abs() < 4 * error


@hard
def test_beta_goes_from_its_start_to_its_end(config):
    config = type(config)(d_sae=24, sparsity=0.1, initial_beta=1.0, final_beta=0.2)
    sae = built(config)
    x, _ = batch("autoencoder")
    for step, beta in ((0, 1.0), (50, 0.6), (100, 0.2)):
        moment = Moment(step, HORIZON)
        given = settings(config, sae, x, moment) | {"beta": beta, "coefficient": float(sae.sparsity(moment))}
        name = "gated_hard_concrete" if isinstance(config, GatedHardConcrete) else "hard_concrete"
        assert_agrees(sae, x, None, REFERENCES[name](x, None, weights(sae), **given), moment)


def test_sparsity_ramps_up_from_zero():
    sae = ReLU(d_sae=24, sparsity=0.2, sparsity_warmup=20).build(16)
    ramp = [float(sae.sparsity(Moment(step, HORIZON))) for step in (0, 5, 10, 20, 60)]
    assert ramp == pytest.approx([0, 0.05, 0.1, 0.2, 0.2])


def test_p_falls_in_equal_updates_and_leaves_the_loss_where_it_was():
    config = ReLU(d_sae=24, sparsity=0.2, p_end=0.4, p_updates=3, anneal_start=0.25, sparsity_warmup=0)
    sae = built(config)
    batches = [sparse_activations(8, seed=step).double() for step in range(100)]
    powers, coefficients = [], []
    for step, x in enumerate(batches):
        moment = Moment(step, HORIZON)
        powers.append(sae.power(step, HORIZON))
        coefficients.append(float(sae.sparsity(moment)))
        sae.absorb(sae.losses(x, x, moment).measured, moment)
    changes = [step for step, (p, q) in enumerate(pairwise(powers), 1) if p != q]
    assert [1, *(powers[step] for step in changes)] == pytest.approx(annealed_p(0.4, 3))
    assert changes[0] >= 25
    w = weights(sae)
    for step in range(1, 100):
        want = coefficients[step - 1]
        if step in changes:
            latents = [REFERENCES["relu"](x, None, w, coefficient=0).latents for x in batches[step - 10 : step]]
            want = annealed_coefficient(want, latents, w, powers[step - 1], powers[step])
        assert coefficients[step] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("config", [TopK(d_sae=24, k=3, initial_k=11, k_anneal=0.5)], ids=["topk"])
def test_k_falls_from_its_start(config):
    sae = built(config)
    x, _ = batch("autoencoder")

    def kept(step):
        return int(sae.losses(x, x, Moment(step, HORIZON)).counts_F.sum()) / len(x)

    ks = [kept(step) for step in (0, 25, 50, 99)]
    assert ks[0] > ks[1] > ks[2] == ks[3] == 3
    given = settings(config, sae, x, MOMENT) | {"k": 11}
    assert_agrees(sae, x, None, REFERENCES["topk"](x, None, weights(sae), **given), Moment(0, HORIZON))


def drawn(config, d_in=4, steps=3000):
    sae = config.build(d_in, seed=5)
    return [sae.prefixes(Moment(step, Horizon(steps, steps, 64))) for step in range(steps)]


def test_random_prefixes_follow_the_pareto_law():
    """One beside the full one, so that the law is that of a single draw."""
    config = Matryoshka(d_sae=40, base=TopK(k=2), random_prefixes=2)
    prefixes = drawn(config)
    assert all(len(p) == 2 and 1 <= p[0] < p[1] == 40 for p in prefixes)
    counts = torch.bincount(torch.tensor([p[0] for p in prefixes]), minlength=40)[1:]
    law = prefix_law(40) * len(prefixes)
    assert stats.power_divergence(counts.numpy(), law.numpy(), lambda_="log-likelihood").pvalue > 0.001


def test_random_prefixes_are_drawn_without_replacement():
    config = Matryoshka(d_sae=5, base=TopK(k=2), random_prefixes=3)
    prefixes = drawn(config)
    assert all(p[2] == 5 for p in prefixes)
    law = prefix_law(5).tolist()
    pairs = [(a, b) for a in range(1, 5) for b in range(a + 1, 5)]
    expected = [law[a - 1] * law[b - 1] * (1 / (1 - law[a - 1]) + 1 / (1 - law[b - 1])) for a, b in pairs]
    counts = [sum(p[:2] == [a, b] for p in prefixes) for a, b in pairs]
    assert sum(counts) == len(prefixes)
    assert stats.chisquare(counts, [e * len(prefixes) for e in expected]).pvalue > 0.001


def test_every_rank_draws_the_same_prefixes():
    sae = Matryoshka(d_sae=40, base=TopK(k=2), random_prefixes=6).build(4)
    draws = [sae.prefixes(Moment(step, HORIZON, rank=rank)) for step in range(20) for rank in range(2)]
    assert all(draws[i] == draws[i + 1] for i in range(0, 40, 2))
    assert len({tuple(d) for d in draws}) > 10
    assert all(len(d) == 6 and d == sorted(set(d)) and d[-1] == 40 for d in draws)


@pytest.mark.parametrize(("d_sae", "ends"), [(32, [1, 3, 7, 15, 32]), (3072, [96, 288, 672, 1440, 3072])])
def test_fixed_prefixes_are_the_cumulated_groups(d_sae, ends):
    assert Matryoshka(d_sae=d_sae, base=TopK(k=2)).build(4).prefixes(MOMENT) == ends


@pytest.mark.parametrize("side", ["autoencoder", "transcoder", "skip"])
def test_resampled_latents_equal_the_reference(side):
    sae = built(ReLU(d_sae=24, sparsity=0.1, resample_every=20), side)
    x, y = batch(side)
    dead = torch.arange(24) % 5 == 2
    rows = [7, 0, 7, 3, 11]
    want = resample(x, y, weights(sae), dead, rows)
    with torch.no_grad():
        sae.restart(dead.nonzero().flatten(), x[rows], (x if y is None else y)[rows])
    for name, weight in weights(sae).items():
        torch.testing.assert_close(weight, want[name], rtol=1e-10, atol=0)


@pytest.mark.parametrize("side", ["autoencoder", "transcoder", "skip"])
def test_resampling_prefers_what_is_reconstructed_badly(side):
    sae = built(ReLU(d_sae=900, sparsity=0.1, resample_every=20), side)
    x, y = batch(side, 6)
    y_or_x = x if y is None else y
    law = resampling_law(x, y, weights(sae))
    sae.tokens_since_fired[3:] = 10**9
    latents = sae.resample(x, y_or_x, Moment(20, HORIZON))
    assert latents.tolist() == list(range(3, 900))
    inputs = x if side != "autoencoder" else x - sae.b_dec
    nearest = (sae.W_enc.T[3:] @ torch.nn.functional.normalize(inputs, dim=1).T).argmax(1)
    counts = torch.bincount(nearest, minlength=6)
    assert stats.chisquare(counts.numpy(), (law * counts.sum()).detach().numpy()).pvalue > 0.001


def test_what_fired_in_the_last_half_interval_is_not_resampled():
    sae = built(ReLU(d_sae=24, sparsity=0.1, resample_every=20))
    x, _ = batch("autoencoder")
    half = 10 * HORIZON.tokens_per_step
    sae.tokens_since_fired[:4] = torch.tensor([half - 64, half, half + 64, 10**9])
    assert sae.resample(x, x, Moment(20, HORIZON)).tolist() == [1, 2, 3]
    due = [step for step in range(100) if sae.resample_due(Moment(step, HORIZON))]
    assert [b - a for a, b in pairwise(due)] == [20] * (len(due) - 1)
    assert len(due) >= 3
