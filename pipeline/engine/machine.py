"""How much memory this process may have: the machine's, or less where a control group says so."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ..errors import RequestError

DEFAULT_PART = 4
"""One part in so many of the memory is a feed's budget where none is given: models and caches want some too."""
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", re.IGNORECASE)


def default_memory_bytes() -> int:
    """Return the budget of a feed where none is given: a quarter of ``machine_memory_bytes``."""
    return machine_memory_bytes() // DEFAULT_PART


def machine_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the machine, or the lowest limit of the control groups that this process is in.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    told = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    assert told is not None, "Linux tells its memory"
    return min([int(told[1]) * 1024, *_group_limits(root)])


def _group_limits(root: Path) -> list[int]:
    """List the limits of the control groups, versions 1 and 2, from this process's own up to the top."""
    groups = root / "proc/self/cgroup"
    limits = []
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, file = (
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            if controllers
            else ("sys/fs/cgroup", "memory.max")
        )
        inner = PurePosixPath(name.lstrip("/"))
        for group in (inner, *inner.parents):
            limit = root / folder / group / file
            if limit.is_file() and (text := limit.read_text().strip()).isdigit():
                limits.append(int(text))
    return limits


def parse_size(text: str, option: str = "--memory") -> int:
    """Read a size such as ``2G``, ``512MiB`` or ``1500000``.

    Raises:
        RequestError: it is none.
    """
    found = _SIZE.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise RequestError(f"{option}: wanted a size such as 2G or 512MiB, got {text!r}; correct it")
    return int(float(found[1]) * UNITS[(found[2] or "").lower()])
