"""A training step asks the device for nothing: not how many latents are dead, nor whether a gradient is finite.

Without a GPU: on meta tensors, which have no values to read, the whole of a bank's step, as it is on a GPU but for what
Lightning does around it; and the Triton kernels' side of the losses on a CPU that says it is none.
"""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from saelight.bank.optimizer import adamw
from saelight.ops import bags, dispatch, entries, select, sparse
from saelight.saes import (
    AbsTopK,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    Moment,
    ReLU,
    SAEConfig,
    TopK,
    batch_topk,
    dead_latents,
)
from saelight.saes import hard_concrete as at_random
from saelight.saes.dead_latents import TeachesDead, teach_dead
from saelight.saes.penalised import PenalisedSAE
from saelight.schedules import Horizon
from tests.support.banks import D_IN, bank
from tests.support.device_reads import NoReads, Refused
from tests.support.variants import VARIANTS

B = 4
HORIZON = Horizon(1000, 1000, B)
TEACHING = {
    "topk, all dead": TopK(d_sae=40, k=4, k_aux=3, dead_after=1),
    "jump_relu, below": JumpReLU(d_sae=40, pre_activation_coefficient=0.1, dead_after=1),
}


class Arrived:
    """A number that came from the device in the meantime. Meta tensors have none to send."""

    def __init__(self, value: torch.Tensor) -> None:
        assert value.shape == ()

    def read(self) -> int:
        return 5


@pytest.fixture
def meta(monkeypatch):
    """What meta tensors cannot do, done without them."""
    monkeypatch.setattr(dead_latents, "Later", Arrived)
    monkeypatch.setattr(at_random, "uniform", lambda shape, like, *key: torch.empty_like(like))
    # There is no autocast for them: products are in bfloat16 as under bf16-mixed.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "meta")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None)


def begun(config: SAEConfig):
    """A bank of one SAE on the meta device with its optimizer, in a training of which nothing is logged."""
    one = bank({"a": config})
    sae = one["a"].to("meta")
    one.to("meta")
    one._horizon = HORIZON
    optimizer = adamw([("a", sae)], HORIZON, one.whitening)["optimizer"]
    state = {"global_step": 3, "global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 0}
    one.trainer = SimpleNamespace(**state, optimizers=[optimizer], callbacks=[], loggers=[])
    one.position = SimpleNamespace(count=lambda *_: 1)
    return one, optimizer


@pytest.mark.parametrize("config", (VARIANTS | TEACHING).values(), ids=VARIANTS | TEACHING)
def test_no_step_of_a_bank_reads_the_device(config, meta):
    one, optimizer = begun(config)
    sae, x_BD = one["a"], torch.empty(B, D_IN, device="meta")
    if isinstance(sae, TeachesDead):
        sae.note_steps(0, HORIZON)

    def closure():
        loss = one.training_step(x_BD, 0)
        optimizer.zero_grad()
        loss.backward()
        one.configure_gradient_clipping(optimizer)
        return loss

    # After the first the dying are looked for, after the second those that were found are used.
    for step in (7, 9):
        one.trainer.global_step = step
        with NoReads("meta"):
            one.optimizer_step(0, 0, optimizer, closure)


SPARSE = {
    "topk": TopK(d_sae=32, k=2, k_aux=3),
    "abs_topk": AbsTopK(d_sae=32, k=2, k_aux=3),
    "batch_topk": BatchTopK(d_sae=32, k=2, k_aux=3),
    "matryoshka": Matryoshka(d_sae=32, base=BatchTopK(k=2, k_aux=3)),
    "relu": ReLU(d_sae=32),
    "jump_relu": JumpReLU(d_sae=32, k_aux=3),
    "gated": Gated(d_sae=32),
}


@pytest.fixture
def on_triton(monkeypatch):
    """The code of a GPU with Triton's kernels, these in the interpreter, out of any mode's sight."""
    from saelight.ops import cuda_kernels

    def hidden(kernel):
        def call(*args):
            with _disable_current_modes():
                return kernel(*args)

        return call

    kernels = SimpleNamespace(weighted_sums=hidden(cuda_kernels.weighted_sums), dots=hidden(cuda_kernels.dots))
    for module in (bags, select, sparse, batch_topk, dispatch):
        monkeypatch.setattr(module, "kernels_for", lambda values: kernels)
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    for module in (bags, entries, select):
        monkeypatch.setattr(module, "loops_for", lambda values: None)


def gradients(sae, x_BD, *, bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = sae.losses(x_BD, x_BD, Moment(500, HORIZON))
    return [losses.total.detach(), *torch.autograd.grad(losses.total, list(sae.parameters())), losses.counts_F]


def trained(config: SAEConfig):
    """An SAE that knows of five dying latents, one of which has fired since, and a batch."""
    x_BD = torch.randn(B, D_IN, generator=torch.Generator().manual_seed(0))
    sae = config.build(D_IN, seed=1)
    sae.initialise(x_BD)
    sae.tokens_since_fired[10:15] = 10**9
    teach_dead(sae)
    sae.tokens_since_fired[12] = 0
    return sae, x_BD


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", SPARSE.values(), ids=SPARSE)
def test_no_sparse_step_reads_the_device_or_adds_in_an_order_of_chance(config, bf16, request):
    sae, x_BD = trained(config)
    expected = gradients(sae, x_BD, bf16=bf16)
    request.getfixturevalue("on_triton")
    if isinstance(sae, PenalisedSAE):
        sae.is_sparse.fill_(True)
    if isinstance(sae, TeachesDead):
        sae._numbers = None
        assert len(sae.taught(x_BD).latents_A) == 8  # 5, filled up
    with NoReads("cpu", atomics=True):
        got = gradients(sae, x_BD, bf16=bf16)
    again = gradients(sae, x_BD, bf16=bf16)
    for a, b, c in zip(got, expected, again, strict=True):
        size = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=0, atol=(0.02 if bf16 else 1e-5) * size)
        assert torch.equal(a, c)


@pytest.mark.parametrize("copy", [lambda t: t.to("meta"), lambda t: torch.empty(3, device="meta").copy_(t)])
def test_copying_is_seen(copy):
    with pytest.raises(Refused), NoReads("meta"):
        copy(torch.zeros(3))


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: bool(t.any()),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t.to(torch.int64).bincount(),
        lambda t: torch.zeros(4).index_add_(0, torch.tensor([1, 1, 2]), t),
    ],
)
def test_reading_is_seen(read):
    with pytest.raises(Refused), NoReads("cpu", atomics=True):
        read(torch.tensor([1.0, 0.0, 2.0]))
