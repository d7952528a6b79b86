"""Keeps freed memory in the process, so that big tensors do not cost page faults again and again."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc to serve blocks below 1 GiB from its heap and to keep that heap; returns whether it took it.

    By default every tensor above 32 MiB is mapped anew and its pages are zeroed by the kernel: up to a quarter
    of the CPU time of a network on a CPU. Other C libraries have no such call and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))
