"""How saelight learns, as digests: what each variant makes of a small set of rows.

One changes when the variant's defaults, schedule, optimizer, loss or the order of its rows do, and not when code moves.
"""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import torch

from benchmarks.quality import ours
from benchmarks.quality.data import Data
from benchmarks.quality.grid import VARIANTS
from benchmarks.quality.runs import OURS, Measured, Run
from saelight.data.shards.writer import ShardWriter
from saelight.data.synthetic import SyntheticRows

RATE = 5e-3
D_IN, D_SAE, L0, BATCH, STEPS, HELD_OUT = 16, 64, 4, 64, 120, 1024
"""Enough steps for `target_l0` to arrive, latents to die and the rate to fall: seconds in all."""


def digest(run: Run) -> str:
    """Eight hex digits of the FVU and L0 that the run's variant comes to, at a given learning rate or at its own."""
    return hashlib.sha256(_learnt()[run.variant, run.lr is None].encode()).hexdigest()[:8]


@cache
def _learnt() -> dict[tuple[str, bool], str]:
    """By variant, and whether at the default rate."""
    with tempfile.TemporaryDirectory() as folder:
        rows, other = Path(folder) / "rows", Path(folder) / "other"
        _write(rows, STEPS * BATCH + 2 * HELD_OUT, seed=0)
        _write(other, HELD_OUT, seed=1)
        data = Data("small", rows, other, STEPS * BATCH, D_SAE // D_IN, HELD_OUT, HELD_OUT)
        results = ours.train([_run(variant, lr) for variant in VARIANTS for lr in (RATE, None)], data)
    return {(result.run.variant, result.run.lr is None): _rounded(result.held_out) for result in results}


def _write(folder: Path, rows: int, seed: int) -> None:
    x_ND = torch.empty(rows, D_IN)
    SyntheticRows(rows=rows, d_in=D_IN, n_features=D_SAE, mean_l0=L0, noise=0.05, seed=seed).read(0, x_ND)
    with ShardWriter(folder, model="synthetic", hook="rows", dtype="float32", d_in=D_IN) as writer:
        writer.append(x_ND, document_ids=torch.arange(rows) // 32)


def _run(variant: str, lr: float | None) -> Run:
    return Run("small", "", OURS, variant, D_SAE, STEPS * BATCH, BATCH, L0, lr, None, seed=0)


def _rounded(measured: Measured) -> str:
    """To three digits: what another processor computes otherwise is less."""
    return f"{measured.fvu:.3g} {measured.l0:.3g}"
