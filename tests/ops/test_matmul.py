"""The encoder's product against plain autograd."""

import pytest
import torch

from saelight.ops.counts import firing_counts
from saelight.ops.matmul import centred_product


@pytest.mark.parametrize("shape", [(5,), (1, 5), (7, 5), (2, 3, 5)])
def test_equals_autograd(shape):
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, (5,), (5, 8))]
    assert torch.autograd.gradcheck(centred_product, inputs)
    torch.testing.assert_close(centred_product(*inputs), (inputs[0] - inputs[1]) @ inputs[2])


def test_runs_in_autocasts_precision():
    x = torch.randn(64, 16)
    gradients = []
    for product in (centred_product, lambda x, b, W: (x - b) @ W):
        g = torch.Generator().manual_seed(0)
        b, W = (torch.randn(s, generator=g).requires_grad_() for s in ((16,), (16, 32)))
        with torch.autocast("cpu", torch.bfloat16):
            z = product(x, b, W)
        assert z.dtype == torch.bfloat16
        gradients.append([z, *torch.autograd.grad(z.float().square().sum(), [b, W])])
    assert all(g.dtype == torch.float32 for g in gradients[0][1:])
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0][2], gradients[1][2], rtol=0, atol=0)
    # Plain autograd rounds every token's share of b's gradient to bfloat16.
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=0.02, atol=0.02 * gradients[1][1].abs().max())


def test_counts_are_exact_beyond_a_byte():
    f = torch.zeros(1000, 3)
    f[:, 1] = 1.0
    f[::2, 2] = 0.5
    f[:3, 0] = -1
    # A signed latent fires below 0 too.
    assert firing_counts(f).tolist() == firing_counts(f != 0).tolist() == [3, 1000, 500]
