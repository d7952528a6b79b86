"""Keeps freed memory in the process, so that big tensors do not cost page faults again and again."""

from __future__ import annotations

import ctypes

from ..pipeline.machine import num_cpus

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc to serve blocks below 1 GiB from its heap and to keep that heap; returns whether it took it.

    By default every tensor above 32 MiB is mapped anew and its pages are zeroed by the kernel: up to a quarter
    of the CPU time of a network on a CPU. And to have one heap for each core instead of eight: every feed brings
    new threads, which take heaps in turn, and each heap would keep what the largest picture once took. Other C
    libraries have no such call and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    asked = (
        (_M_MMAP_THRESHOLD, _KEEP_BYTES),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_ARENA_MAX, max(2, num_cpus())),
    )
    done = [bool(mallopt(option, value)) for option, value in asked]
    return all(done)
