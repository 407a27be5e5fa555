"""How long a step takes, and how much memory: each variant alone, many together, and what surrounds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.training import AtStart, Bench, Size, configs, timed
from saelight.saes import SAE, SAEConfig
from saelight.saes.dead_latents import teach_dead

SLOW = {"hard_concrete": 8, "gated_hard_concrete": 8, "matching_pursuit": 3}
"""Steps that are measured of those that take long."""
SIZES = (Size(384, 3072), Size(768, 65536), Size(2304, 16384), Size(2304, 65536))


def dense(bench: Bench) -> None:
    """As saelight comes on CUDA."""
    saes = configs(bench.size.d_sae, bench.size.k)
    _alone(bench, saes)
    _together(bench, saes)
    for products in ("highest", "high"):
        for name, config in bench.some({"topk": saes["topk"], "relu": saes["relu"]}).items():
            with _float32_products(products):
                call = partial(timed, bench, {name: config}, precision="32-true", steps=10)
                bench.results.measure(f"alone, float32 with {products} products", name, call)
    topk = {"topk": saes["topk"]}
    bench.results.measure("alone", "topk, 1000 dead", partial(timed, bench, topk, callbacks=[AtStart(_kill)]))
    for where in ("pinned", "pageable"):
        bench.results.measure("topk, its batches lie elsewhere", where, partial(timed, bench, topk, where=where))
    _sizes(bench)


def sparse(bench: Bench) -> None:
    """With SAELIGHT_TRITON=1, the variants that gates do not make dense."""
    saes = {name: config for name, config in configs(bench.size.d_sae, bench.size.k).items() if "hard" not in name}
    _alone(bench, saes)
    _together(bench, saes)
    call = partial(timed, bench, {"topk": saes["topk"]}, precision="32-true", steps=10)
    bench.results.measure("alone, float32", "topk", call)
    _sizes(bench)


def _alone(bench: Bench, saes: dict[str, SAEConfig]) -> None:
    for name, config in bench.some(saes).items():
        call = partial(timed, bench, {name: config}, steps=SLOW.get(name, 20))
        bench.results.measure("alone", name, call, needs=5)


def _together(bench: Bench, saes: dict[str, SAEConfig]) -> None:
    fast = {name: config for name, config in saes.items() if name != "matching_pursuit"}
    bench.results.measure("together", f"{len(fast)} variants", partial(timed, bench, fast, steps=10), needs=6)
    bench.results.measure("together", "nine topk", partial(timed, bench, bench.nine(saes["topk"]), steps=10), needs=5)


def _sizes(bench: Bench) -> None:
    for size in SIZES if bench.cuda else [bench.size]:
        topk = configs(size.d_sae, size.k)["topk"]
        row = f"{size.d_in} to {size.d_sae}"
        call = partial(timed, bench, {"topk": topk}, size=size, steps=10)
        bench.results.measure("topk, other sizes", row, call, needs=8)
        if size is SIZES[0]:
            call = partial(timed, bench, bench.nine(topk), size=size)
            bench.results.measure("topk, other sizes", f"{row}, nine", call, needs=8)


@torch.no_grad()
def _kill(sae: SAE, x_BD: Tensor) -> None:
    """Make a thousand latents, or half of a small SAE's, dead for good."""
    n = min(1000, sae.d_sae // 2)
    sae.tokens_since_fired[:n] = 10**12
    sae.dead_after.fill_(10**11)
    sae.get_parameter("b_enc")[:n] = -1e3
    teach_dead(sae)


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
