"""Computing only the entries that can be active changes how fast a bank trains, and nothing else."""

import pytest
import torch

from saelight.saes import SAE, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK
from saelight.saes.penalised import PenalisedSAE
from tests.support.activations import sparse_activations
from tests.support.banks import bank, fit, weights

WIDTH = {"d_sae": 128, "lr": 3e-4}
WIDE = {
    "relu": ReLU(**WIDTH, sparsity=2.0),
    "gated": Gated(**WIDTH, sparsity=3.0),
    "jump": JumpReLU(**WIDTH, sparsity=1.0),
    "topk": TopK(**WIDTH, k=4),
    "batch": BatchTopK(**WIDTH, k=4),
    "nested": Matryoshka(**WIDTH, base=ReLU(sparsity=2.0)),
}


def trained(monkeypatch, sparse_below: float, saes) -> tuple[dict[str, dict[str, torch.Tensor]], list[bool]]:
    """The weights after 100 steps, and whether each SAE ended in sparse execution."""
    monkeypatch.setattr(SAE, "sparse_below", sparse_below)
    trained = bank(dict(saes), seed=1)
    fit(trained, sparse_activations(6400))
    sparse = [bool(sae.is_sparse) for sae in trained.saes if isinstance(sae, PenalisedSAE)]
    return {name: weights(trained, name) for name in saes}, sparse


@pytest.mark.parametrize("sparse_below", [float("inf"), 0.6], ids=["all sparse", "switching"])
def test_weights_after_100_steps_are_the_dense_ones(monkeypatch, sparse_below):
    dense, were_sparse = trained(monkeypatch, 0.0, WIDE)
    sparse, are_sparse = trained(monkeypatch, sparse_below, WIDE)
    assert not any(were_sparse)
    assert all(are_sparse)
    for name in WIDE:
        for key, want in dense[name].items():
            if key.startswith(("W_", "b_")):
                size = float(want.abs().max())
                got, label = sparse[name][key], f"{name}.{key}: "
                torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * size, msg=lambda m, label=label: label + m)
