"""Right numbers: the Triton kernels against float64, and each variant's gradients on the device against others'.

Shapes: B batch, D width, E entries, F d_sae, N bags, R rows of a table.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.training import Bench, configs, mean_ms, set_sparsity
from benchmarks.speed.measure import activations
from saelight.bank.isolation import own_gradients
from saelight.ops import cuda_kernels
from saelight.saes import SAE, Moment, SAEConfig
from saelight.saes.dead_latents import teach_dead
from saelight.saes.penalised import PenalisedSAE
from saelight.schedules import Horizon


def run(bench: Bench) -> None:
    for width in (768, 2304, 100, 1) if bench.cuda else (40,):
        for skewed in (False, True):
            row = f"width {width}{', skewed' * skewed}"
            bench.results.measure("kernels against float64", row, partial(_kernels, bench, width, skewed))
    d_in, d_sae, batch, k = (96, 4096, 1024, 16) if bench.cuda else (16, 256, 32, 4)
    x_BD = activations(batch, d_in, seed=0)
    for name, config in configs(d_sae, k).items():
        bench.results.measure("gradients' largest differences", name, partial(_variant, bench, config, x_BD), needs=6)


def _kernels(bench: Bench, width: int, skewed: bool) -> dict[str, Any]:
    """Errors of both kernels relative to the norm, and whether a second call gives the same bits."""
    g = torch.Generator().manual_seed(width)
    bags, rows, entries = (16384, 4096, 200_000) if bench.cuda else (20, 15, 100)
    bags_E = torch.randint(bags, (entries,), generator=g)
    if skewed:
        # Three bags hold half of the entries, and most hold none.
        bags_E[::2] = torch.randint(3, (len(bags_E[::2]),), generator=g)
    bags_E = bags_E.sort().values
    starts_N = torch.searchsorted(bags_E, torch.arange(bags + 1))
    rows_E, weights_E = torch.randint(rows, (entries,), generator=g), torch.randn(entries, generator=g)
    table_RD, left_ND = torch.randn(rows, width, generator=g), torch.randn(bags, width, generator=g)
    taken_ED = table_RD.double()[rows_E]
    sums_ND = torch.zeros(bags, width, dtype=torch.float64).index_add_(0, bags_E, taken_ED * weights_E.double()[:, None])
    dots_E = (left_ND.double()[bags_E] * taken_ED).sum(1)

    bags_E, starts_N, rows_E = (t.to(bench.device) for t in (bags_E, starts_N, rows_E))
    weights_E, table_RD, left_ND = (t.to(bench.device) for t in (weights_E, table_RD, left_ND))
    sums = partial(cuda_kernels.weighted_sums, table_RD, rows_E, weights_E, starts_N)
    dots = partial(cuda_kernels.dots, left_ND, bags_E, table_RD, rows_E)
    row: dict[str, Any] = {"sums": _difference(sums(), sums_ND), "dots": _difference(dots(), dots_E)}
    row["repeatable"] = torch.equal(sums(), sums()) and torch.equal(dots(), dots())
    if not (row["repeatable"] and row["sums"] < 1e-5 and row["dots"] < 1e-5):
        raise ArithmeticError(f"the kernels are wrong: {row}")
    if bench.cuda:
        row |= {"sums_ms": mean_ms(bench, sums)["ms"], "dots_ms": mean_ms(bench, dots)["ms"]}
    return row


class _Step(NamedTuple):
    loss: Tensor
    gradients: list[Tensor]


def _variant(bench: Bench, config: SAEConfig, x_BD: Tensor) -> dict[str, Any]:
    """One SAE's step on the device, dense and sparse, in float32 and bfloat16, against the dense one in float32."""
    step = partial(_step, config, x_BD)
    dense = step(bench.device, sparse=False)
    row = {"dense, CPU": _largest(dense, step("cpu", sparse=False))}
    row["sparse"] = _largest(step(bench.device, sparse=True), dense)
    row["dense, bf16"] = _largest(step(bench.device, sparse=False, bf16=True), dense)
    row["sparse, bf16"] = _largest(step(bench.device, sparse=True, bf16=True), dense)
    return row


def _step(config: SAEConfig, x_BD: Tensor, device: str, *, sparse: bool, bf16: bool = False) -> _Step:
    sae = config.build(x_BD.shape[1], seed=1)
    sae.initialise(x_BD)
    set_sparsity(sae, x_BD)
    # Some latents are dead, so that AuxK has work.
    sae.tokens_since_fired[:200] = 10**9
    sae.dead_after.fill_(10**6)
    teach_dead(sae)
    if isinstance(sae, PenalisedSAE):
        sae.is_sparse.fill_(sparse)
    sae, x_BD = sae.to(device), x_BD.to(device)
    with _execution(sparse), torch.autocast(device, torch.bfloat16, enabled=bf16):
        losses = sae.losses(x_BD, x_BD, Moment(3, Horizon(1000, 1000, len(x_BD))))
    return _Step(losses.total.detach(), own_gradients(losses.total, list(sae.parameters())))


@contextmanager
def _execution(sparse: bool) -> Iterator[None]:
    """Have SAEs compute what they keep alone, or everything, whatever their density."""
    before = SAE.sparse_below
    SAE.sparse_below = float("inf") if sparse else 0.0
    try:
        yield
    finally:
        SAE.sparse_below = before


def _largest(one: _Step, other: _Step) -> float:
    """The largest difference of loss and gradients, each relative to its norm."""
    pairs = zip([one.loss, *one.gradients], [other.loss, *other.gradients], strict=True)
    return max(_difference(a, b) for a, b in pairs)


def _difference(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
