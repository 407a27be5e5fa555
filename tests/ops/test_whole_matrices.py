"""What a GPU computes in few passes, against the same written out. B batch, D width, F d_sae, E entries."""

import math

import pytest
import torch
from torch import Tensor

from saelight.bank.isolation import _clip_on_device, clip_gradients
from saelight.ops.error import mean_square, nested_mean_squares
from saelight.ops.gating import gated
from saelight.ops.jump import jump, jump_and_steps, step
from saelight.ops.matmul import centred_product, row_dots, weighed_product
from saelight.ops.placed import encode_placed, largest_of_all, largest_of_rows

B, D, F = 24, 6, 32


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_alike(ours: Tensor, written_out: Tensor, *of: Tensor) -> None:
    """Equal values and equal gradients."""
    torch.testing.assert_close(ours, written_out)
    for got, want in zip(torch.autograd.grad(ours, of), torch.autograd.grad(written_out, of), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_placed_entries_are_those_of_the_dense_matrix(signed, weighed):
    x, centre, W_enc, bias, W_dec = (
        tensor(B, D),
        tensor(D, seed=1),
        tensor(D, F, seed=2),
        tensor(F, seed=3),
        tensor(F, D, seed=4),
    )
    weights_F = tensor(F, seed=5).detach().abs() + 0.1 if weighed else None
    z_E, entries = encode_placed(x, centre, W_enc, bias, weights_F, largest_of_rows(5, signed))
    z_BF = (x - centre) @ W_enc + bias
    by_BF = z_BF if weights_F is None else z_BF * weights_F
    places = (by_BF.abs() if signed else by_BF).topk(5, dim=1).indices
    f_BF = torch.zeros_like(z_BF).scatter(1, places, z_BF.gather(1, places))
    ends = [4, 9, F]

    def loss(decoded: Tensor, blocks: list[Tensor], sums_F: Tensor) -> Tensor:
        return decoded.square().sum() + sum((i + 1) * b.pow(3).sum() for i, b in enumerate(blocks)) + sums_F.square().sum()

    ours = loss(entries.decode(z_E, W_dec), entries.decode_blocks(z_E, W_dec, ends), entries.per_latent(z_E))
    blocks = [f_BF[:, a:b] @ W_dec[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert_alike(ours, loss(f_BF @ W_dec, blocks, f_BF.sum(0)), x, centre, W_enc, bias, W_dec)
    assert torch.equal(entries.counts(z_E.detach()), (f_BF != 0).sum(0))
    assert torch.equal(entries.at(bias), bias[entries.latents_E])


def test_the_largest_of_a_batch_are_its_largest():
    z_BF = tensor(B, F).detach()
    values, places, latents = largest_of_all(30)(z_BF)
    assert torch.equal(values.sort().values, z_BF.flatten().sort().values[-30:])
    assert torch.equal(z_BF.flatten()[places], values)
    assert torch.equal(latents, places % F)


def test_jump_and_steps_are_both():
    pre, theta = tensor(B, F), tensor(F, seed=1).detach().abs().add(0.1).requires_grad_()
    f, steps, counts = jump_and_steps(pre, theta, 0.7)
    reference = jump(pre, theta, 0.7)
    assert_alike(
        (f * f.cos()).sum() + 3 * steps, (reference * reference.cos()).sum() + 3 * step(pre, theta, 0.7).sum(), pre, theta
    )
    assert torch.equal(counts, (pre > theta).sum(0))


def test_gates_and_magnitudes():
    pre, scale, shift = tensor(B, F), tensor(F, seed=1), tensor(F, seed=2)
    gate = torch.relu(pre)
    f, total = gated(gate, scale, shift)
    reference = torch.relu(scale * pre + shift) * (pre > 0)
    assert_alike(
        (f * f.cos()).sum() + 3 * total + gate.cos().sum(),
        (reference * reference.cos()).sum() + 3 * torch.relu(pre).sum() + torch.relu(pre).cos().sum(),
        *(pre, scale, shift),
    )


def test_a_rectified_product_is_the_products_relu():
    x, centre, W, bias = tensor(B, D), tensor(D, seed=1), tensor(D, F, seed=2), tensor(F, seed=3)
    ours, plain = centred_product(x, centre, W, bias, rectified=True), torch.relu((x - centre) @ W + bias)
    assert_alike(ours.cos().sum(), plain.cos().sum(), x, centre, W, bias)


def test_a_weighed_product_has_the_weighed_sum_beside_it():
    v, W = tensor(B, F), tensor(F, D, seed=1)
    product, weighed = weighed_product(v, W)
    assert_alike(product.cos().sum() + 3 * weighed, (v @ W).cos().sum() + 3 * (v * W.norm(dim=1)).sum(), v, W)


def test_errors_and_their_mean_squares():
    y, *blocks = (tensor(B, D, seed=i) for i in range(4))
    error, mean = mean_square(y, blocks[0])
    assert_alike(mean * 3, (y - blocks[0]).square().mean() * 3, y, blocks[0])
    assert torch.equal(error, y - blocks[0])
    offset = tensor(D, seed=5)
    left, mean, whole = nested_mean_squares(y, offset, blocks)
    errors = [y - offset - sum(blocks[:n]) for n in (1, 2, 3)]
    assert_alike(mean * 3, sum(e.square().mean() for e in errors), y, offset, *blocks)
    torch.testing.assert_close(left, errors[-1])
    torch.testing.assert_close(whole, errors[-1].square().mean())


def test_dot_products_of_rows():
    torch.testing.assert_close(row_dots(tensor(F, D), tensor(F, D, seed=1)), (tensor(F, D) * tensor(F, D, seed=1)).sum(1))


@pytest.mark.parametrize("largest", [None, 0.5, 1e3])
def test_a_device_clips_as_a_cpu_does(largest):
    ours, theirs = ([tensor(F, D).detach(), tensor(F, seed=1).detach()] for _ in range(2))
    norm, finite = _clip_on_device(ours, largest)
    expected, _ = clip_gradients(theirs, largest)
    torch.testing.assert_close(norm, expected)
    assert finite
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_device_zeroes_a_non_finite_gradient_as_a_whole(bad):
    gradients = [torch.ones(3), torch.tensor([1.0, bad])]
    _, finite = _clip_on_device(gradients, 1.0)
    assert not finite
    assert all((g == 0).all() for g in gradients)
