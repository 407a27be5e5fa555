"""The other libraries as `make quality` trains them: in their own units, measured in the model's."""

import pytest
import torch

from benchmarks.peers import binding
from benchmarks.peers.learning import Task
from benchmarks.quality.evaluate import evaluate
from benchmarks.quality.grid import STARTS
from benchmarks.quality.runs import OURS, Measured
from tests.conformance.peers.support import peer
from tests.support.activations import sparse_activations

STEPS, BATCH, L0 = 60, 128, 4
RECIPES = [(library, variant) for library in STARTS if library != OURS for variant in STARTS[library]]


def learnt(library: str, variant: str, scale: float) -> Measured:
    rows_ND = scale * (3 + sparse_activations((STEPS + 4) * BATCH))
    coefficient = STARTS[library][variant].coefficient
    task = Task(variant, 16, 64, L0, coefficient and coefficient / 4, 1e-2, STEPS, BATCH, seed=0)
    learner = binding(library).learner(task, rows_ND[: 8 * BATCH])
    batches, held_out_ND = rows_ND[: STEPS * BATCH].split(BATCH), rows_ND[STEPS * BATCH :]
    for x_BD in batches:
        learner.step(x_BD)
    return evaluate(learner.inference(), held_out_ND.split(BATCH), len(held_out_ND))[0]


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(("library", "variant"), RECIPES)
def test_rows_of_any_size_are_learnt_and_given_back(library, variant):
    peer(library)
    small, large = learnt(library, variant, 1.0), learnt(library, variant, 16.0)
    assert small.fvu < 0.9
    assert 0 < small.l0 < 60
    if variant == "topk":
        assert small.l0 <= L0
    # A power of two scales exactly: but for what each library adds to a norm, it learns the same.
    torch.testing.assert_close((large.fvu, large.l0), (small.fvu, small.l0), rtol=0.05, atol=0.01)
