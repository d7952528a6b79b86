"""glibc malloc settings: keep freed memory in the process, to avoid page faults for large tensors."""

from __future__ import annotations

import ctypes

from ..pipeline.machine import num_cpus

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Make glibc serve blocks below 1 GiB from its heap without returning memory; return whether it succeeded.

    By default every tensor above 32 MiB is mapped anew and its pages are zeroed by the kernel: up to a quarter
    of the CPU time of a network on a CPU. Also limits glibc to one arena per core instead of eight: every feed starts
    new threads, which take arenas in turn, and each arena would keep the size of its largest image. Other C libraries
    have no such call and are left unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _KEEP_BYTES),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_ARENA_MAX, max(2, num_cpus())),
    )
    done = [bool(mallopt(option, value)) for option, value in settings]
    return all(done)
