"""Compiled loops where numba is installed, shared out over as many threads as torch uses."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

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
