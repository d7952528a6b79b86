"""Lightwell over a number of samples; the value is the process's peak of resident memory in MB.

The peak is the kernel's ``VmHWM`` and not ``getrusage``, which would tell the parent's where that was higher. Pages of a
mapped cache count as long as they are resident.
"""

from __future__ import annotations

import re
from pathlib import Path

from lightwell import LocalEngine, Plan, View

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, RATIO, SCALE
from benchmarks.memory import FEW, LARGE_FEW, LARGE_MANY, MANY

CROP = {"RandomResizedCrop": {"size": [SIDE, SIDE], "scale": list(SCALE), "ratio": list(RATIO)}}
FLIP = {"HorizontalFlip": {"p": FLIP_P}}


def few(work: Work) -> float:
    """Read few photos."""
    return _peak(work, f"photos-{FEW}")


def many(work: Work) -> float:
    """Read many photos."""
    return _peak(work, f"photos-{MANY}")


def few_large(work: Work) -> float:
    """Read few pictures of 12 megapixels."""
    return _peak(work, f"large-{LARGE_FEW}")


def many_large(work: Work) -> float:
    """Read many pictures of 12 megapixels."""
    return _peak(work, f"large-{LARGE_MANY}")


def few_cached(work: Work) -> float:
    """Read few photos from the cache, which the first run fills."""
    return _peak(work, f"photos-{FEW}", cached=True)


def many_cached(work: Work) -> float:
    """Read the same few from the cache until they are as many."""
    return _peak(work, f"photos-{FEW}", cached=True, num_epochs=MANY // FEW)


def _peak(work: Work, index: str, *, cached: bool = False, num_epochs: int = 1) -> float:
    scratch = Path(work.scratch)
    content = {
        "index": scratch / f"{index}.parquet",
        "augment": [CROP, FLIP],
        "batch": {"size": work.batch_size},
    }
    if cached:
        content["preprocess"] = [{"SmallestMaxSize": {"max_size": 256}}]
        content["cache"] = {"dir": scratch / "cache"}
    plan = Plan.model_validate(content)
    view = View(shuffle=True, augment=True, num_epochs=num_epochs)
    with LocalEngine(num_threads=NUM_WORKERS).feed(plan, view) as feed:
        for batch in feed:
            assert batch.images.shape[1:] == (SIDE, SIDE, 3)
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None
    return int(told[1]) / 1000
