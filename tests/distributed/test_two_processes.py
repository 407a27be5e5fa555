"""Two gloo processes fed the halves of every batch do what one process fed the whole does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saelight.bank.isolation import clip_gradients, derived_seed
from saelight.bank.latent_adamw import whitening_of
from saelight.bank.optimizer import adamw, forget
from saelight.data.norms import ordinary
from saelight.saes import Moment
from saelight.schedules import Horizon
from tests.distributed.halves import BATCH, STEPS
from tests.support.activations import sparse_activations
from tests.support.variants import VARIANTS

ROOT = Path(__file__).parents[2]

# The others' objectives are not sums over tokens (AuxK's ratio, BatchTopK's selection, a squared L0) or draw noise of their
# own on each rank: the two-half reference is their measure.
SUMS_OVER_TOKENS = ["relu", "relu_p", "relu_target_l0", "gated", "matryoshka_relu", "matching_pursuit"]


def trained(out: Path, world: int, *args: str) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.halves", str(world), str(out), *args]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    return {world: trained(folder / f"{world}.pt", world) for world in (1, 2)}


def two_half_reference(name: str) -> dict[str, torch.Tensor]:
    """One process that averages the gradients of the two halves: what DDP means for terms not linear over tokens."""
    x = sparse_activations(STEPS * BATCH)
    sae = VARIANTS[name].build(16, seed=derived_seed(0, name))
    sae.initialise(x)
    horizon = Horizon(STEPS, STEPS, BATCH)
    made = adamw([(name, sae)], horizon, whitening_of(ordinary(x)))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    if sae.config.dead_after is None:
        sae.dead_after.fill_(horizon.tokens // 20)
    sae.note_steps(0, horizon)
    for step, batch in enumerate(x.split(BATCH)):
        counts, measured = 0, []
        for rank, half in enumerate(batch.chunk(2)):
            moment = Moment(step, horizon, rank=rank)
            losses = sae.losses(half, half, moment)
            (losses.total / 2).backward()
            counts = counts + losses.counts_F
            measured += [losses.measured]
        sae.tokens_since_fired.add_(BATCH).masked_fill_(counts > 0, 0)
        sae.constrain_gradients()
        clip_gradients([p.grad for p in sae.parameters()], sae.config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        sae.constrain_weights()
        if measured[0] is not None:
            sae.absorb((measured[0] + measured[1]) / 2, moment)
        sae.note_steps(step + 1, horizon)
        if sae.resample_due(moment):
            forget(optimizer, sae, sae.resample(x, x, moment))
    return dict(sae.named_parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_equal_the_two_half_reference(name, runs):
    for key, expected in two_half_reference(name).items():
        got = runs[2]["weights"][name][key]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", SUMS_OVER_TOKENS)
def test_weights_equal_one_processs(name, runs):
    for key, expected in runs[1]["weights"][name].items():
        torch.testing.assert_close(runs[2]["weights"][name][key], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SUMS_OVER_TOKENS)
def test_counters_are_exactly_one_processs(name, runs):
    one, two = (runs[world]["counters"][name] for world in (1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert runs[1]["tokens"] == runs[2]["tokens"] == STEPS * BATCH


@pytest.mark.parametrize("name", SUMS_OVER_TOKENS)
def test_metrics_are_one_processs(name, runs):
    one, two = (runs[world]["evaluation"][name] for world in (1, 2))
    # The weights differ by rounding here; tests/metrics shows that the metrics themselves are exact.
    assert one == pytest.approx(two, rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_a_nan_on_one_rank_quarantines_that_sae_on_all(runs, tmp_path):
    found = trained(tmp_path / "poisoned.pt", 2, "relu")
    healthy, poisoned = runs[2]["weights"], found["weights"]
    assert found["stopped"] == [0]
    for name in VARIANTS.keys() - {"relu"}:
        assert all(torch.equal(healthy[name][key], poisoned[name][key]) for key in healthy[name])
    # Rank 0's own weights stayed finite: nothing non-finite was ever applied.
    assert all(weight.isfinite().all() for weight in poisoned["relu"].values())
