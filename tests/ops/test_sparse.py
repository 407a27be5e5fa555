"""The sparse encoder and decoder against autograd of the dense products, in float32.

B batch, D width, F d_sae, E entries.
"""

import sys
from pathlib import Path

import pytest
import torch

import saelight.ops
from saelight.errors import UserError
from saelight.ops import bags, dispatch, matmul
from saelight.ops.entries import AllEntries, KeptEntries
from saelight.ops.fallback import find_op
from saelight.ops.matmul import centred_product
from saelight.ops.select import above, scan
from saelight.ops.sparse import sparse_encode

B, D, F = 96, 40, 320

pytestmark = pytest.mark.usefixtures("loops")


def inputs(seed: int = 0, rows: int = B, d_sae: int = F) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"x": (rows, D), "centre": (D,), "W_enc": (D, d_sae), "bias": (d_sae,), "W_dec": (d_sae, D)}
    tensors = {name: torch.randn(shape, generator=g) / shape[0] ** 0.5 for name, shape in shapes.items()}
    return {name: t.requires_grad_() for name, t in tensors.items()}


def gradients(loss: torch.Tensor, of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(of, torch.autograd.grad(loss, list(of.values())), strict=True))


def assert_alike(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    for name, gradient in want.items():
        atol = 1e-5 * float(gradient.abs().max())
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def sparse_loss(t: dict[str, torch.Tensor], bound: float, ends: list[int]) -> torch.Tensor:
    z_E, entries = scan(t["x"], t["centre"], t["W_enc"], t["bias"], above(torch.tensor(bound)))
    f_E = torch.relu(sparse_encode(t["x"], t["centre"], t["W_enc"], t["bias"], z_E, entries) - bound)
    return loss(f_E, entries, t, ends)


def dense_loss(t: dict[str, torch.Tensor], bound: float, ends: list[int]) -> torch.Tensor:
    f_BF = torch.relu((t["x"] - t["centre"]) @ t["W_enc"] + t["bias"] - bound)
    return loss(f_BF, AllEntries(), t, ends)


def loss(f: torch.Tensor, entries: AllEntries | KeptEntries, t: dict[str, torch.Tensor], ends: list[int]) -> torch.Tensor:
    norms_F = t["W_dec"].norm(dim=1)
    blocks = entries.decode_blocks(f, t["W_dec"], ends)
    error = sum((t["x"].detach() - block).square().mean() for block in [*blocks, entries.decode(f, t["W_dec"])])
    return error + 0.1 * (entries.per_latent(f) * norms_F).sum() + 0.1 * (f * entries.at(norms_F)).square().sum()


@pytest.mark.parametrize("bound", [-10.0, 0.0, 1.5, 100.0], ids=["all", "half", "few", "none"])
def test_losses_and_gradients_equal_the_dense_ones(bound, loops):
    # The interpreter takes milliseconds for each bag.
    rows, d_sae = (6, 64) if loops == "triton" else (B, F)
    t, ends = inputs(rows=rows, d_sae=d_sae), [10, d_sae // 2, d_sae]
    sparse, dense = sparse_loss(t, bound, ends), dense_loss(t, bound, ends)
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=0)
    assert_alike(gradients(sparse, t), gradients(dense, t))


def test_counts_and_density_equal_the_dense_ones():
    t = inputs()
    with torch.no_grad():
        z_E, entries = scan(t["x"], t["centre"], t["W_enc"], t["bias"], above(torch.tensor(0.5)))
        z_BF = centred_product(t["x"], t["centre"], t["W_enc"], t["bias"])
    assert entries.density == pytest.approx(float((z_BF > 0.5).float().mean()))
    assert torch.equal(entries.counts(torch.relu(z_E - 0.6)), AllEntries().counts(torch.relu(z_BF - 0.6) * (z_BF > 0.5)))


def test_operators_that_torch_does_not_promise_may_be_missing(monkeypatch):
    monkeypatch.setattr(bags, "loops_for", lambda values: None)
    monkeypatch.setattr(bags, "kernels_for", lambda values: None)
    t = inputs()
    with_them = gradients(sparse_loss(t, 1.0, [F]), t)
    find_op.cache_clear()
    monkeypatch.setattr(bags, "_DOTS", "aten.no_such_operator")
    with pytest.warns(UserWarning, match="no aten.no_such_operator: saelight works without it, only slower"):
        assert_alike(gradients(sparse_loss(t, 1.0, [F]), t), with_them)
    sparse_loss(t, 1.0, [F]).backward()  # the warning comes once
    a, b = torch.randn(300, 200), torch.randn(200, 100)
    matmul.prefers_onednn.cache_clear()
    monkeypatch.setattr(matmul, "_ONEDNN", "mkldnn.no_such_operator")
    if "AuthenticAMD" in Path("/proc/cpuinfo").read_text():
        with pytest.warns(UserWarning, match="no mkldnn.no_such_operator"):
            assert matmul.kernel() == "torch"
    torch.testing.assert_close(matmul.matmul(a, b), a @ b)
    matmul.prefers_onednn.cache_clear()


def test_cuda_kernels_are_for_those_who_ask(monkeypatch):
    class OnCUDA:
        is_cpu, is_cuda = False, True

    for asked, found in (("0", False), ("1", True)):
        dispatch._triton.cache_clear()
        monkeypatch.setenv("SAELIGHT_TRITON", asked)
        assert dispatch.trains_sparsely(OnCUDA()) == found
        assert dispatch.code_for(OnCUDA()) == ("triton" if found else "torch")
    dispatch._triton.cache_clear()
    monkeypatch.delitem(sys.modules, "saelight.ops.cuda_kernels", raising=False)
    monkeypatch.delattr(saelight.ops, "cuda_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(UserError, match="SAELIGHT_TRITON=1 needs Triton: pip install triton"):
        dispatch.trains_sparsely(OnCUDA())
    dispatch._triton.cache_clear()
    assert dispatch.trains_sparsely(torch.zeros(1))


@pytest.mark.parametrize("strided", [False, True])
def test_large_products_equal_torchs(strided):
    a, b, bias = torch.randn(300, 200), torch.randn(200, 100), torch.randn(100)
    if strided:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    torch.testing.assert_close(matmul.matmul(a, b, bias), a @ b + bias, rtol=1e-5, atol=1e-4)
