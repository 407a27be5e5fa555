"""The same losses and gradients where all is computed in whole matrices, as on a GPU without kernels of our own.

B batch, D d_in, F d_sae.
"""

from dataclasses import replace

import pytest
import torch

from saelight.saes import SAE, TopK
from saelight.saes.losses import Losses
from tests.conformance.objectives import MOMENT
from tests.support.variants import VARIANTS

USERS = ("relu", "topk", "batch_topk", "jump_relu", "gated")
MORE = {
    "topk_unit": TopK(d_sae=40, k=4, decoder="unit", dead_after=256),
    "topk_skip": TopK(d_sae=40, k=4, skip=True),
    "matryoshka_topk": replace(VARIANTS["matryoshka"], base=TopK(k=4)),
}


def outcome(sae: SAE, x_BD: torch.Tensor, y_BD: torch.Tensor) -> tuple[Losses, list[torch.Tensor]]:
    losses = sae.losses(x_BD, y_BD, MOMENT)
    return losses, list(torch.autograd.grad(losses.total, list(sae.parameters()), allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("name", [*VARIANTS, *MORE])
def test_losses_and_gradients_are_the_same(name, monkeypatch):
    config, g = (VARIANTS | MORE)[name], torch.Generator().manual_seed(3)
    x_BD, y_BD = (torch.randn(64, 16, generator=g, dtype=torch.float64) for _ in range(2))
    sae = config.build(16, 0, 16 if config.skip else None).double()
    for p in sae.parameters():  # as they never are at the start
        p.data.add_(0.1 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    y_BD = y_BD if config.skip else x_BD
    sae.tokens_since_fired[:3] = 10**9
    want, gradients = outcome(sae, x_BD, y_BD)
    for user in USERS:
        monkeypatch.setattr(f"saelight.saes.{user}.trains_sparsely", lambda values: False)
    monkeypatch.setattr("saelight.saes.penalised.may_ask", lambda values: False)
    for user in ("saes.hard_concrete", "saes.gated_hard_concrete", "ops.gates"):
        monkeypatch.setattr(f"saelight.{user}.works_in_whole", lambda values: True)
    got, whole = outcome(sae, x_BD, y_BD)
    torch.testing.assert_close(got.total, want.total)
    torch.testing.assert_close(got.reconstruction, want.reconstruction)
    assert torch.equal(got.counts_F, want.counts_F)
    assert got.counts_F.sum() > 0
    for (parameter, _), ours, reference in zip(sae.named_parameters(), whole, gradients, strict=True):
        torch.testing.assert_close(ours, reference, msg=lambda m, p=parameter: f"{p}: {m}")
