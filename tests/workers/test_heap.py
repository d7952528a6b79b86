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


FEEDS = """
import re, sys, threading
import numpy as np
from lightwell.workers.heap import keep_freed_memory
kept = keep_freed_memory()

def decode():  # as decoders do: what is large between what is small, and the small outlives it
    small = []
    for number in range(20):
        large = np.ones((1 << 23) + 4096 * number, np.uint8)
        small.append(np.ones(1000, np.uint8))
        del large
    kept_small.append(small)

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

kept_small = []
sizes = []
for feed in range(24):
    threads = [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    sizes.append(resident())
print(int(kept), sizes[-1] - sizes[5])
"""


def test_new_threads_do_not_bring_new_heaps_for_ever() -> None:
    run = subprocess.run([sys.executable, "-c", FEEDS], check=True, capture_output=True, text=True)
    kept, growth = map(int, run.stdout.split())
    if kept:
        assert growth < 20_000_000
