"""The C library's allocator, told to keep what is freed.

glibc hands blocks of some megabytes back to the system when they are freed, and gets them anew, page by page, at the next
step: a tenth to a quarter of a training step on a CPU goes into page faults.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, of malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 2 GB for this process to use again. Does nothing without glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            libc.mallopt(parameter, _LARGEST)
