"""Processor time of this process, of the workers that it has on Ray, and of Ray's own processes."""

from __future__ import annotations

import os
from pathlib import Path

from clusters import command_line

WORKER = "ray::Batch"
"""In the command line of a process that makes batches."""
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of_all() -> dict[str, float]:
    """Add up the seconds that this process and all below it have taken so far: ``driver``, ``worker`` and ``ray``."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(folder.name)
        parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS
    spent = {"driver": 0.0, "worker": 0.0, "ray": 0.0}
    for pid, taken in seconds.items():
        if pid == os.getpid():
            spent["driver"] += taken
        elif is_below(pid, os.getpid(), parents):
            spent["worker" if WORKER in command_line(pid) else "ray"] += taken
    return spent


def is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    """Say whether a process descends from another."""
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor
