"""Single operations at training's size: what the hardware gives, and where a kernel of our own would pay.

Shapes: B batch, D d_in, E entries, F d_sae.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F_
from torch import nn

from benchmarks.gpu.training import Bench, mean_ms
from saelight.ops import cuda_kernels


def run(bench: Bench) -> None:
    _hardware(bench)
    _products(bench)
    _selection(bench)
    _weights(bench)
    _bags(bench)
    _transfers(bench)


def _put(bench: Bench, row: str, call: Callable[[], Any], moved: int = 0, operations: int = 0) -> None:
    """Measure a call that moves so many bytes, or makes so many floating-point operations."""

    def measured() -> dict[str, float]:
        times = mean_ms(bench, call)
        rates = {"TB_per_s": moved / times["ms"] / 1e9, "TFLOP_per_s": operations / times["ms"] / 1e9}
        return times | {name: rate for name, rate in rates.items() if rate}

    bench.results.measure("operations", row, measured, needs=3)


def _normal(bench: Bench, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, device=bench.device, dtype=dtype)


def _hardware(bench: Bench) -> None:
    n = 1 << (28 if bench.cuda else 12)
    a, b = (torch.empty(n, device=bench.device) for _ in range(2))
    _put(bench, "copy", lambda: b.copy_(a), moved=8 * n)
    n = 8192 if bench.cuda else 64
    c, d = _normal(bench, n, n), _normal(bench, n, n)
    _put(bench, f"product {n}, bf16", lambda: c @ d, operations=2 * n**3)


def _products(bench: Bench) -> None:
    D, F, B, _ = bench.size
    x_BD, W_FD, z_BF = _normal(bench, B, D), _normal(bench, F, D), _normal(bench, B, F)
    put = partial(_put, bench, operations=2 * B * D * F)
    put("encoder, bf16", lambda: x_BD @ W_FD.T)
    put("decoder, bf16", lambda: z_BF @ W_FD)
    put("gradient of the weights, bf16", lambda: z_BF.T @ x_BD)
    x_BD, W_FD = x_BD.float(), W_FD.float()
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        put(f"encoder, float32, {precision}", lambda: x_BD @ W_FD.T)
    torch.set_float32_matmul_precision("highest")


def _selection(bench: Bench) -> None:
    _, F, B, k = bench.size
    z_BF = _normal(bench, B, F)
    z32_BF, bound_B1 = z_BF.float(), z_BF.topk(k).values[:, -1:]
    index_BK = z_BF.topk(k).indices
    latents_E = index_BK.flatten()
    sorted_E, ends_F = latents_E.sort().values, torch.arange(F + 1, device=bench.device)
    candidates = _normal(bench, B * k * 3 // 2, dtype=torch.float32)
    _put(bench, "topk of rows, bf16", lambda: z_BF.topk(k, sorted=False), moved=2 * B * F)
    _put(bench, "topk of rows, float32", lambda: z32_BF.topk(k, sorted=False), moved=4 * B * F)
    _put(bench, "topk of the batch, float32", lambda: z32_BF.flatten().topk(B * k, sorted=False), moved=4 * B * F)
    _put(bench, "kthvalue of candidates", lambda: candidates.kthvalue(len(candidates) // 3))
    _put(bench, "compare to a bound, nonzero", lambda: (z_BF >= bound_B1).view(-1).nonzero(), moved=2 * B * F)
    _put(bench, "fires, (z != 0).sum(0)", lambda: (z_BF != 0).sum(0), moved=2 * B * F)
    _put(bench, "zeros and scatter_", lambda: torch.zeros_like(z_BF).scatter_(1, index_BK, 1.0), moved=2 * B * F)
    _put(bench, "zeros and scatter", lambda: torch.zeros_like(z_BF).scatter(1, index_BK, 1.0), moved=6 * B * F)
    _put(bench, "sort of latents, int64", partial(latents_E.sort, stable=True))
    _put(bench, "sort of latents, int32", partial(latents_E.int().sort, stable=True))
    _put(bench, "bincount", lambda: torch.bincount(latents_E, minlength=F))
    _put(bench, "searchsorted for starts", lambda: torch.searchsorted(sorted_E, ends_F))


def _weights(bench: Bench) -> None:
    D, F, _, _ = bench.size
    weights = [nn.Parameter(_normal(bench, F, D, dtype=torch.float32)) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    n, one = 2 * F * D, torch.ones((), device=bench.device)
    for kind in ("fused", "foreach"):
        optimizer = torch.optim.AdamW(weights, lr=1e-6, **{kind: True})
        _put(bench, f"AdamW, {kind}", optimizer.step, moved=28 * n)
    _put(bench, "gradients times 1", lambda: torch._foreach_mul_(gradients, one), moved=8 * n)
    _put(bench, "norm of gradients", lambda: nn.utils.get_total_norm(gradients), moved=4 * n)
    W_FD = weights[0].detach()
    _put(bench, "rows to norm 1", lambda: W_FD.div_(W_FD.norm(dim=1, keepdim=True)), moved=6 * n)
    _put(bench, "weights to bf16", W_FD.bfloat16, moved=3 * n)


def _bags(bench: Bench) -> None:
    """Sparse decoding and its gradient, by our kernels and by torch's; interpreted they would take minutes."""
    D, F, B, k = bench.size
    W_FD, g_BD = (_normal(bench, rows, D, dtype=torch.float32) for rows in (F, B))
    latents_E = torch.rand(B, F, device=bench.device).topk(k).indices.flatten()
    values_E, tokens_E = torch.rand(B * k, device=bench.device), torch.arange(B, device=bench.device).repeat_interleave(k)
    by_token_B = torch.arange(0, B * k + 1, k, device=bench.device)
    order_E = latents_E.argsort(stable=True)
    by_latent_F = torch.searchsorted(latents_E[order_E], torch.arange(F + 1, device=bench.device))
    moved = 4 * B * k * D
    if bench.cuda:
        sums, dots = cuda_kernels.weighted_sums, cuda_kernels.dots
        ordered = tokens_E[order_E], values_E[order_E], by_latent_F
        _put(bench, "decode, ours", lambda: sums(W_FD, latents_E, values_E, by_token_B), moved=moved)
        _put(bench, "gradient of the latents, ours", lambda: dots(g_BD, tokens_E, W_FD, latents_E), moved=moved)
        _put(bench, "gradient of the weights, ours", lambda: sums(g_BD, *ordered), moved=moved)
    bag = partial(F_.embedding_bag, latents_E, offsets=by_token_B, mode="sum", include_last_offset=True)
    _put(bench, "decode, embedding_bag", lambda: bag(W_FD, per_sample_weights=values_E), moved=moved)
    added = partial(torch.index_add, torch.zeros_like(W_FD), 0, latents_E)
    _put(bench, "gradient of the weights, index_add", lambda: added(g_BD[tokens_E] * values_E[:, None]))


def _transfers(bench: Bench) -> None:
    D, _, B, _ = bench.size
    x_BD = torch.randn(B, D)
    places = {"pageable": x_BD} | ({"pinned": x_BD.pin_memory()} if bench.cuda else {})
    for where, x_BD in places.items():
        _put(bench, f"batch to the device, {where}", partial(x_BD.to, bench.device, non_blocking=True), moved=4 * B * D)
    small = torch.zeros(64, device=bench.device)
    _put(bench, "100 small launches", lambda: [small.add_(1) for _ in range(100)])
