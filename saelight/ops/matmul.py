"""Matrix products by the fastest exact kernel of this processor, with gradients.

torch's own float32 product reaches less than half of an AMD processor's speed, because the library behind it (MKL) is made
for another maker's; oneDNN, which torch carries too, has no such preference. Which of the two runs depends on processor,
shapes and dtype alone, never on a timing: they differ in the last bit. Shapes: M, K, N as in (M, K) @ (K, N).
"""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saelight.ops.fallback import find_op
from saelight.ops.gating import where_above

_ONEDNN = "mkldnn._linear_pointwise"
_SMALLEST = 1 << 22  # multiplications below which oneDNN's preparation costs more than it wins


@cache
def prefers_onednn() -> bool:
    """Whether float32 products on this processor go through oneDNN: on AMD's, where torch has it."""
    try:
        amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    if not (amd and torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    return find_op(_ONEDNN) is not None


def kernel() -> str:
    """The name of what multiplies large float32 matrices on the CPU here: onednn or torch."""
    return "onednn" if prefers_onednn() else "torch"


def matmul(a_MK: Tensor, b_KN: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """a @ b (+ bias), without gradient. Any strides."""
    large = a_MK.is_cpu and a_MK.dtype == torch.float32 and len(a_MK) * b_KN.numel() >= _SMALLEST
    if large and prefers_onednn() and (onednn := find_op(_ONEDNN)) is not None:
        return onednn(a_MK, b_KN.T, bias_N, "none", [], "")
    return a_MK @ b_KN if bias_N is None else torch.addmm(bias_N, a_MK, b_KN)


def _rectified(a_MK: Tensor, b_KN: Tensor, bias_N: Tensor | None) -> Tensor:
    """ReLU(a @ b (+ bias)); on a device in the product's own last step, where torch has that."""
    if bias_N is not None and not a_MK.is_cpu and (addmm_relu := find_op("aten._addmm_activation")) is not None:
        return addmm_relu(bias_N, a_MK, b_KN)
    return matmul(a_MK, b_KN, bias_N).relu_()


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products that involve x: autocast's, where it is on."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a_MK: Tensor, b_KN: Tensor) -> Tensor:
        dtype = compute_dtype(a_MK)
        ctx.dtypes = a_MK.dtype, b_KN.dtype
        a_MK, b_KN = a_MK.to(dtype), b_KN.to(dtype)
        ctx.save_for_backward(a_MK, b_KN)
        return matmul(a_MK, b_KN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, ...]:
        a_MK, b_KN = ctx.saved_tensors
        da_MK = matmul(grad_MN, b_KN.T).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        db_KN = matmul(a_MK.T, grad_MN).to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return da_MK, db_KN


def product(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """a @ b with gradients, (M, N); under autocast in its dtype, forward and backward."""
    return _Product.apply(a_MK, b_KN)


class _WeighedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v_BF: Tensor, W_FD: Tensor) -> tuple[Tensor, Tensor]:
        half_FD, norms_F = W_FD.to(v_BF.dtype), W_FD.norm(dim=1)
        sums_F = v_BF.sum(0, dtype=W_FD.dtype)
        ctx.save_for_backward(v_BF, W_FD, half_FD, norms_F, sums_F)
        return matmul(v_BF, half_FD), sums_F @ norms_F

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor, dl1: Tensor) -> tuple[Tensor | None, ...]:
        v_BF, W_FD, half_FD, norms_F, sums_F = ctx.saved_tensors
        # The penalty's gradients are added within the passes that the product's take anyway.
        dv_BF = matmul(grad_BD, half_FD.T, (norms_F * dl1).to(v_BF.dtype))
        along_F = (sums_F / norms_F).masked_fill_(norms_F == 0, 0) * dl1
        dW_FD = torch.addcmul(matmul(v_BF.T, grad_BD), W_FD, along_F[:, None], out=torch.empty_like(W_FD))
        return dv_BF, dW_FD


def weighed_product(v_BF: Tensor, W_FD: Tensor) -> tuple[Tensor, Tensor]:
    """v @ W (B, D), and Σ_B Σ_i v_i ‖W_i‖, of v (B, F) in the dtype of products."""
    return _WeighedProduct.apply(v_BF, W_FD)


class _BlockProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v_BF: Tensor, W_FD: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        dtype = compute_dtype(v_BF)
        ctx.dtypes, ctx.sizes = (v_BF.dtype, W_FD.dtype), sizes
        v_BF, W_FD = v_BF.to(dtype), W_FD.to(dtype)
        ctx.save_for_backward(v_BF, W_FD)
        return tuple(matmul(v, W) for v, W in zip(v_BF.split(sizes, 1), W_FD.split(sizes), strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v_BF, W_FD = ctx.saved_tensors
        # Written where they belong in the whole's gradient; those of slices would be padded to it and added up.
        dv_BF, dW_FD = torch.empty_like(v_BF), torch.empty_like(W_FD)
        blocks = (t.split(ctx.sizes, dim) for t, dim in ((v_BF, 1), (W_FD, 0), (dv_BF, 1), (dW_FD, 0)))
        for grad_BD, v, W, dv, dW in zip(grads, *blocks, strict=True):
            _matmul_into(dv, grad_BD, W.T)
            _matmul_into(dW, v.T, grad_BD)
        return dv_BF.to(ctx.dtypes[0]), dW_FD.to(ctx.dtypes[1]), None


def _matmul_into(out_MN: Tensor, a_MK: Tensor, b_KN: Tensor) -> None:
    if out_MN.is_cpu:
        out_MN.copy_(matmul(a_MK, b_KN))
    else:
        torch.mm(a_MK, b_KN, out=out_MN)


def block_products(v_BF: Tensor, W_FD: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
    """v @ W of each block of latents alone, G times (B, D); the blocks end before `ends`."""
    return _BlockProducts.apply(v_BF, W_FD, [end - start for start, end in pairwise([0, *ends])])


def row_dots(a_NK: Tensor, b_NK: Tensor) -> Tensor:
    """The dot product of each two rows, (N,)."""
    if a_NK.is_cpu:
        return torch.linalg.vecdot(a_NK, b_NK)
    # vecdot writes the products of all entries; a batch of products of one row and one column does not.
    return torch.bmm(a_NK[:, None], b_NK[:, :, None]).view(-1)


def centred(x_MK: Tensor, centre_K: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x - centre in `dtype`, in one pass."""
    if centre_K is None or dtype == x_MK.dtype:
        return x_MK.to(dtype) if centre_K is None else x_MK - centre_K
    return torch.sub(x_MK, centre_K, out=torch.empty_like(x_MK, dtype=dtype))


class _CentredProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MK: Tensor, centre_K: Tensor | None, W_KN: Tensor, bias_N: Tensor | None, rectified: bool
    ) -> Tensor:
        dtype = compute_dtype(x_MK)
        ctx.dtypes = x_MK.dtype, W_KN.dtype
        x_MK, exact_KN, W_KN = centred(x_MK, centre_K, dtype), W_KN, W_KN.to(dtype)
        ctx.vector_dtype = (W_KN if centre_K is None else centre_K).dtype
        z_MN = (_rectified if rectified else matmul)(x_MK, W_KN, None if bias_N is None else bias_N.to(dtype))
        # A device reads the weights themselves for the centre's gradient, rather than write their copy in full precision.
        ctx.save_for_backward(x_MK, W_KN, W_KN if x_MK.is_cpu else exact_KN, z_MN if rectified else None)
        return z_MN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz_MN: Tensor) -> tuple[Tensor | None, ...]:
        x_MK, W_KN, exact_KN, rectified_MN = ctx.saved_tensors
        dx = dcentre = dW = None
        if rectified_MN is not None:
            dz_MN = where_above(dz_MN, rectified_MN)
        if ctx.needs_input_grad[0]:
            dx = matmul(dz_MN, W_KN.T).to(ctx.dtypes[0])
        sums_N = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
            sums_N = dz_MN.sum(0, dtype=ctx.vector_dtype)
        if ctx.needs_input_grad[1] and sums_N is not None:
            # Summed over tokens before the product: one row's, not a batch's.
            dcentre = -sums_N @ exact_KN.T.to(ctx.vector_dtype)
        if ctx.needs_input_grad[2]:
            # The layout of W_enc itself, whose memory is (N, K).
            dW = matmul(dz_MN.T, x_MK).to(ctx.dtypes[1]).T
        return dx, dcentre, dW, sums_N if ctx.needs_input_grad[3] else None, None


def centred_product(
    x: Tensor, centre_K: Tensor | None, W_KN: Tensor, bias_N: Tensor | None = None, *, rectified: bool = False
) -> Tensor:
    """(x - centre) @ W + bias for x (..., K): (..., N); `rectified`: its ReLU.

    Equal to the plain expression, gradients included, but the centre's gradient costs one row's product instead of a
    batch's: a sixth of a training step where x itself needs no gradient.
    """
    z = _CentredProduct.apply(x.reshape(-1, x.shape[-1]), centre_K, W_KN, bias_N, rectified)
    return z.reshape(*x.shape[:-1], W_KN.shape[1])
