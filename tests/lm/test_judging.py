"""What a model loses with an SAE in it, beside the same by the plainest means: a hook, a window at a time, float64 sums."""

import math

import pytest
import torch

from saelight.data.norms import ordinary
from saelight.lm.judging import Candidate, Judge
from saelight.lm.places import find
from saelight.lm.row_rule import RowRule
from saelight.lm.substitution import Substitution
from saelight.ops.normalisation import Normalisation
from saelight.saes import ReLU, TopK
from tests.support.language_model import CONTEXT, WIDTH, WORDS

LENGTHS = (CONTEXT, 9, CONTEXT, 2, 17)
BOS = 1


@pytest.fixture(scope="module")
def windows():
    draw = torch.Generator().manual_seed(3)
    found = [torch.randint(3, len(WORDS), (n,), generator=draw) for n in LENGTHS]
    for window in found:
        window[0] = BOS
    return found


def sae_of(config=None, d_out=None):
    torch.manual_seed(0)
    return (config or TopK(d_sae=48, k=6)).build(WIDTH, seed=1, d_out=d_out).requires_grad_(False)


def judged(llama, candidates, windows, special=(BOS,), batch=2, read="layers.0", written=None):
    written = find(llama, [written or read])
    substitution = Substitution(llama, find(llama, [read]), written)
    judge = Judge(substitution, candidates, special, CONTEXT)
    for start in range(0, len(windows), batch):
        group = windows[start : start + batch]
        ids = torch.zeros(len(group), max(map(len, group)), dtype=torch.int64)
        for row, window in zip(ids, group, strict=True):
            row[: len(window)] = window
        judge.add(ids, torch.tensor([[t < len(w) for t in range(ids.shape[1])] for w in group]))
    return judge.finish()


def plain(llama, windows, out_of, special=(BOS,), module="layers.0"):
    """CE and KL per token that counts, of the model itself and with `out_of(activations, ids)` put in place."""
    ce, kl, original = [], [], []
    for window in windows:
        clean = llama(input_ids=window[None]).logits[0].log_softmax(-1).double()
        place = llama.model.get_submodule(module)
        handle = place.register_forward_hook(lambda _m, _a, x, window=window: out_of(x[0], window)[None])
        new = llama(input_ids=window[None]).logits[0].log_softmax(-1).double()
        handle.remove()
        for t, token in enumerate(window.tolist()):
            if token in special:
                continue
            kl.append(float((clean[t].exp() * (clean[t] - new[t])).sum()))
            if t + 1 < len(window):
                ce.append(-float(new[t, window[t + 1]]))
                original.append(-float(clean[t, window[t + 1]]))
    return sum(ce) / len(ce), sum(kl) / len(kl), sum(original) / len(original)


def rows_of(llama, windows, special=(BOS,), module="layers.0"):
    seen = []
    handle = llama.model.get_submodule(module).register_forward_hook(lambda _m, _a, x: seen.append(x[0]))
    for window in windows:
        llama(input_ids=window[None])
    handle.remove()
    keep = [torch.tensor([t not in special for t in w.tolist()]) for w in windows]
    return torch.cat([x[k] for x, k in zip(seen, keep, strict=True)])


def spliced(sae, special):
    return lambda x, ids: torch.where(torch.isin(ids, torch.tensor(special, dtype=torch.int64))[:, None], x, sae(x))


@pytest.mark.parametrize("special", [(BOS,), ()])
@pytest.mark.parametrize("batch", [1, 5])
def test_losses_are_those_of_the_plainest_means(special, batch, llama, windows):
    sae = sae_of()
    (found,) = judged(llama, [Candidate("a", sae)], windows, special, batch)
    ce, kl, clean = plain(llama, windows, spliced(sae, special), special)
    ce_zero, kl_zero, _ = plain(llama, windows, lambda x, _: torch.zeros_like(x), special)
    rows = rows_of(llama, windows, special)
    mean = ordinary(rows).mean(0)
    ce_mean, kl_mean, _ = plain(llama, windows, lambda x, _: mean.expand_as(x), special)
    expected = {
        "ce_clean": clean,
        "ce_sae": ce,
        "ce_zero": ce_zero,
        "ce_mean": ce_mean,
        "kl_sae": kl,
        "kl_zero": kl_zero,
        "kl_mean": kl_mean,
        "loss_recovered": (ce_zero - ce) / (ce_zero - clean),
        "loss_recovered_mean": (ce_mean - ce) / (ce_mean - clean),
        "kl_recovered": (kl_zero - kl) / kl_zero,
        "fvu": float((rows - sae(rows)).square().sum() / (rows - rows.mean(0)).square().sum()),
        "l0": float((sae.encode(rows) != 0).sum(1).float().mean()),
        "cosine": float(torch.cosine_similarity(rows, sae(rows), dim=1).mean()),
    }
    assert {key: found.metrics[key] for key in expected} == pytest.approx(expected, abs=2e-5)
    assert "excluded" not in found.metrics


def test_positions_add_up(llama, windows):
    (found,) = judged(llama, [Candidate("a", sae_of())], windows)
    assert found.positions["ce_sae"][0] is None  # every window begins with BOS
    counts = [sum(t < n - 1 for n in LENGTHS) for t in range(CONTEXT)]
    ce = [(n, value) for n, value in zip(counts[1:], found.positions["ce_sae"][1:], strict=True) if n]
    assert sum(n * value for n, value in ce) / sum(n for n, _ in ce) == pytest.approx(found.metrics["ce_sae"])
    assert found.positions["l0"][1] == pytest.approx(6)


def test_sinks_that_the_sae_was_not_trained_on_pass_unspliced(llama, windows):
    sae, skipped = sae_of(), 3
    rows = rows_of(llama, windows)
    norms = rows.norm(dim=1)
    rule = RowRule(skip_positions=skipped, drop_tokens=(5,))
    (found,) = judged(llama, [Candidate("a", sae, rule)], windows)
    positions = torch.cat([torch.arange(1, n) for n in LENGTHS])
    ids = torch.cat([window[1:] for window in windows])
    out = (positions < skipped) | (ids == 5)
    assert found.metrics["excluded"] == pytest.approx(float(out.float().mean()))

    def kept(x, ids):
        stays = (torch.arange(len(ids)) < skipped) | (ids == 5) | (ids == BOS)
        return torch.where(stays[:, None], x, sae(x))

    assert found.metrics["ce_sae"] == pytest.approx(plain(llama, windows, kept)[0], abs=2e-5)
    everywhere = plain(llama, windows, spliced(sae, [BOS]))[0]
    assert found.metrics["ce_sae_all"] == pytest.approx(everywhere, abs=2e-5)
    lost = found.metrics["ce_zero"] - found.metrics["ce_clean"]
    assert found.metrics["loss_recovered_all"] == pytest.approx((found.metrics["ce_zero"] - everywhere) / lost, abs=1e-4)
    x = rows[~out]
    assert found.metrics["fvu"] == pytest.approx(
        float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()), rel=1e-4
    )
    # A limit on norms, too: so many medians of what nothing else leaves out.
    limit = 1.05
    (found,) = judged(llama, [Candidate("a", sae, RowRule(max_norm=limit))], windows)
    assert found.metrics["excluded"] == pytest.approx(float((norms > limit * norms.median()).float().mean()))
    assert 0 < found.metrics["excluded"] < 1


def test_a_transcoder_replaces_its_target(llama, windows):
    sae = sae_of(ReLU(d_sae=48), d_out=WIDTH)
    (found,) = judged(llama, [Candidate("a", sae)], windows, read="layers.1.mlp.input", written="layers.1.mlp")
    inputs = []
    handle = llama.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))

    def put(y, ids):
        return torch.where((ids == BOS)[:, None], y, sae(inputs[-1]))

    ce, kl, _ = plain(llama, windows, put, module="layers.1.mlp")
    handle.remove()
    assert (found.metrics["ce_sae"], found.metrics["kl_sae"]) == pytest.approx((ce, kl), abs=2e-5)
    y = rows_of(llama, windows, module="layers.1.mlp")
    assert found.metrics["fvu"] > 0
    assert y.shape[1] == sae.d_out


def test_an_sae_in_its_own_units_is_judged_in_the_models(llama, windows):
    units = Normalisation("standard", 0.3, torch.linspace(-1, 1, WIDTH).double())
    trained, folded = sae_of(), sae_of()
    with torch.no_grad():
        folded.fold_for_use(units)
    in_units, plainly = judged(llama, [Candidate("a", trained, units=units), Candidate("b", folded)], windows)
    for key in ("ce_sae", "kl_sae", "fvu", "l0", "loss_recovered"):
        assert in_units.metrics[key] == pytest.approx(plainly.metrics[key], rel=1e-3), key


def test_all_saes_share_the_models_own_pass(llama, windows):
    calls = [0, 0]

    def count(i):
        calls[i] += 1

    handles = [block.mlp.register_forward_hook(lambda *_, i=i: count(i)) for i, block in enumerate(llama.model.layers)]
    judged(llama, [Candidate(name, sae_of()) for name in "abc"], windows, batch=2)
    for handle in handles:
        handle.remove()
    # Three batches: the first block once each, the second for the model itself, both ablations and three SAEs.
    assert calls == [3, 3 * 6]


def test_a_perfect_sae_recovers_all_and_one_that_is_not_finite_says_so(llama, windows):

    good, bad = sae_of(), sae_of()
    good.reconstruct = lambda f, x: x  # type: ignore[method-assign]
    bad.W_dec[:] = math.nan
    perfect, broken = judged(llama, [Candidate("good", good), Candidate("bad", bad)], windows)
    assert perfect.metrics["loss_recovered"] == pytest.approx(1, abs=1e-5)
    assert perfect.metrics["kl_sae"] == pytest.approx(0, abs=1e-5)
    assert math.isnan(broken.metrics["ce_sae"])
    assert math.isnan(broken.metrics["loss_recovered"])


def test_rules_of_sources():
    assert RowRule.of({}) == RowRule()
    noted = {"max_norm": 10, "skip_positions": 1, "drop_tokens": [3], "drop_special": True}
    assert RowRule.of(noted) == RowRule(10.0, 1, (3,))
    assert RowRule.of({"max_norm": "10", "skip_positions": None, "drop_tokens": "x"}) == RowRule()
