"""How exact float32 matrix products are on CUDA: in TF32 or not, chosen for a run and put back after it.

TF32 rounds the factors to 10 bits of mantissa (bf16 has 7) and adds up in float32: eight to ten times as fast as full
float32 on an A100 or H100, and closer to it than bf16-mixed, in which SAEs train as well (docs/training.md).
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info

MatmulPrecision = Literal["highest", "high", "medium"]
"""torch's words: full float32, TF32, and bf16 (which on CUDA is TF32 too)."""


def choose(setting: MatmulPrecision | None, device: torch.device, precision: str) -> MatmulPrecision | None:
    """What torch is to be set to; None leaves it alone.

    Without a setting: TF32 where a run computes in float32 on CUDA and nobody has told torch anything; what somebody has,
    by whichever of torch's ways, stays.
    """
    if setting is not None or device.type != "cuda":
        return setting
    told = torch.backends.cuda.matmul.fp32_precision
    if told == "none":
        return "high" if precision == "32-true" else None
    # Told through torch.backends alone, torch no longer answers get_float32_matmul_precision, which Lightning calls.
    return "high" if told == "tf32" and _in_one_word() is None else None


@contextlib.contextmanager
def float32_products(setting: MatmulPrecision | None, device: torch.device, precision: str) -> Iterator[None]:
    """Have torch multiply float32 matrices as `choose` says while this lasts."""
    chosen = choose(setting, device, precision)
    if chosen is None:
        yield
        return
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    told = [matmul.fp32_precision for matmul in matmuls]
    before = _in_one_word()
    if setting is None and told[0] == "none":
        rank_zero_info("float32 products in TF32, ten times as fast (trainer.float32_matmul_precision: highest is exact)")
    torch.set_float32_matmul_precision(chosen)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before or "highest")
        for matmul, value in zip(matmuls, told, strict=True):
            matmul.fp32_precision = value


def _in_one_word() -> str | None:
    """What torch was last told by `set_float32_matmul_precision`; None where one backend was told otherwise since."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
