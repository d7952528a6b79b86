"""Freed memory stays in the process: a big block is not mapped anew each time."""

from __future__ import annotations

import json
import subprocess
import sys

from lightwell.pipeline.machine import num_cpus

MEASURE = """
import json, resource, sys
import numpy as np
from lightwell.workers.malloc import keep_freed_memory
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


HEAPS = """
import re, threading
import numpy as np
from lightwell.workers.malloc import keep_freed_memory
kept = keep_freed_memory()

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

turn, all_done = threading.Lock(), threading.Barrier(13)

def decode():  # one after another, while all threads live
    with turn:
        np.ones(1 << 23, np.uint8)
    all_done.wait()

before = resident()
threads = [threading.Thread(target=decode) for _ in range(12)]
for thread in threads: thread.start()
all_done.wait()
for thread in threads: thread.join()
print(int(kept), resident() - before)
"""


def test_threads_share_few_heaps_that_keep_what_a_large_picture_took() -> None:
    """A small block may come to lie in the hole that a picture left, so that the next one needs another: three tries."""
    growths = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", HEAPS], check=True, capture_output=True, text=True)
        kept, growth = map(int, run.stdout.split())
        growths.append(growth if kept else 0)
    assert min(growths) < (1 + max(2, num_cpus())) * (1 << 23) + 8_000_000
