"""CPUs and memory available to this process, with respect to CPU affinity and cgroup limits."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from pydantic import ByteSize, TypeAdapter, ValidationError

from .errors import RequestError
from .text import quoted

DEFAULT_MEMORY_DIVISOR = 4
"""The default memory budget of a feed is this fraction (1/4) of the available memory."""


def default_memory_bytes() -> int:
    """Return the default memory budget of a feed: a quarter of ``machine_memory_bytes``."""
    return machine_memory_bytes() // DEFAULT_MEMORY_DIVISOR


def machine_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the machine, or the lowest limit of the cgroups of this process.

    Args:
        root: parent folder of ``proc`` and ``sys``.
    """
    found = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None, "Linux lists MemTotal"
    files = {1: ["memory.limit_in_bytes"], 2: ["memory.max"]}
    limits = [text for (text,) in _limits(root, "memory", files) if text.isdigit()]
    return min([int(found[1]) * 1024, *map(int, limits)])


def num_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs available to this process, at least 1.

    The number of CPUs in its affinity mask (``taskset``, cpusets), or the cgroup quota (``docker run --cpus``, Kubernetes
    limits) if that is lower; fractions are rounded up.

    Args:
        root: parent folder of ``proc`` and ``sys``.
    """
    quota = _cpu_quota(root)
    allowed = len(os.sched_getaffinity(0))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


@cache
def _cpu_quota(root: Path) -> float | None:
    """Return the CPU quota of the cgroups, None without a limit. Cached, since it is needed after every batch."""
    files = {1: ["cpu.cfs_quota_us", "cpu.cfs_period_us"], 2: ["cpu.max"]}
    quotas = []
    for texts in _limits(root, "cpu", files):
        match " ".join(texts).split():
            case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
                quotas.append(int(quota) / int(period))
            case _:  # "max", or -1 in version 1
                continue
    return min(quotas, default=None)


def _limits(root: Path, controller: str, files: dict[int, list[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the contents of cgroup files (v1 and v2) of this process, from its own group up to the root.

    Args:
        root: parent folder of ``proc`` and ``sys``.
        controller: such as ``memory``.
        files: names of the files to read, by cgroup version.
    """
    groups = root / "proc/self/cgroup"
    mounted = root / "sys/fs/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        folders = (controllers, controller) if controllers else ("", "unified")
        inner = PurePosixPath(name.lstrip("/"))
        for folder in dict.fromkeys(folders):
            for group in (inner, *inner.parents):
                paths = [mounted / folder / group / file for file in files[version]]
                if all(path.is_file() for path in paths):
                    yield tuple(path.read_text().strip() for path in paths)


def parse_size(text: str, option: str = "--memory") -> int:
    """Parse a size such as ``2G``, ``512MiB`` or ``1500000`` into bytes.

    Raises:
        RequestError: the text is not a size.
    """
    try:
        num_bytes = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        num_bytes = 0
    if not 1 <= num_bytes < 2**62:
        raise RequestError(f"{option}: expected a size such as 2G or 512MiB, got {quoted(text)}; correct it")
    return num_bytes
