"""Freed memory stays in the process: a big block is not mapped anew each time."""

from __future__ import annotations

import json
import subprocess
import sys

MEASURE = """
import json, resource, sys
import numpy as np
from lightwell.workers.heap import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
np.ones(1 << 25, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones((1 << 25) + 4096, np.uint8)
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def measure(how: str) -> tuple[bool, int]:
    run = subprocess.run([sys.executable, "-c", MEASURE, how], check=True, capture_output=True, text=True)
    kept, faults = json.loads(run.stdout)
    return kept, faults


def test_big_blocks_are_used_again_instead_of_being_mapped_anew() -> None:
    kept, faults = measure("keep")
    if kept:  # glibc took it
        assert faults < measure("leave")[1] / 4
