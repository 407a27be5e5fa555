"""Which compiled code there is: on CPUs numba's loops, shared out over torch's threads; on CUDA Triton's kernels."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

from saelight.errors import UserError

T = TypeVar("T")
_SMALLEST = 1 << 8  # of a part: starting a thread's work takes some 20 microseconds


@cache
def compiled() -> ModuleType | None:
    """The compiled loops (`compiled.py`), or None without numba."""
    try:
        import saelight.ops.compiled
    except ImportError:
        return None
    except RuntimeError as error:  # numba's, where it finds no folder to keep compiled code in
        warnings.warn(f"no compiled loops, {error}: set NUMBA_CACHE_DIR to a folder that can be written", stacklevel=2)
        return None
    return saelight.ops.compiled


def loops_for(values: torch.Tensor) -> ModuleType | None:
    """The compiled loops, if they can work where `values` are."""
    return compiled() if values.is_cpu else None


@cache
def _triton() -> ModuleType | None:
    # Not measured on a GPU yet, and so only for those who ask (docs/performance.md).
    if os.environ.get("SAELIGHT_TRITON") != "1":
        return None
    try:
        import saelight.ops.cuda_kernels
    except ImportError:
        raise UserError("SAELIGHT_TRITON=1 needs Triton: pip install triton, or unset it") from None
    return saelight.ops.cuda_kernels


def kernels_for(values: torch.Tensor) -> ModuleType | None:
    """The CUDA kernels (`cuda_kernels.py`), if they can work where `values` are and SAELIGHT_TRITON=1 asks for them."""
    return _triton() if values.is_cuda else None


def trains_sparsely(values: torch.Tensor) -> bool:
    """Whether there is code for computing some entries alone where `values` are."""
    return values.is_cpu or kernels_for(values) is not None


def may_ask(values: torch.Tensor) -> bool:
    """Whether the host may ask how many there are of something: where `values` are on a GPU it would wait for the answer."""
    return values.is_cpu


def works_in_whole(values: torch.Tensor) -> bool:
    """Whether passes over a whole matrix are what is fast where `values` are: not on a CPU, whose cache holds chunks."""
    return not values.is_cpu


def code_for(values: torch.Tensor) -> str:
    """Whose code computes some entries alone where `values` are: triton, numba or torch."""
    return "triton" if kernels_for(values) else "numba" if loops_for(values) else "torch"


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="saelight")


def in_parts(loop: Callable[[int, int], T], n: int) -> list[T]:
    """loop(low, high) over 0 … n, in as many parts as torch has threads: what each returns, in order."""
    parts = max(1, min(torch.get_num_threads(), n // _SMALLEST))
    if parts == 1:
        return [loop(0, n)]
    ends = [n * part // parts for part in range(parts + 1)]
    return list(_pool(parts).map(loop, ends[:-1], ends[1:]))
