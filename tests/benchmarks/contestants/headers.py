"""Lightwell's index: headers a second."""

from __future__ import annotations

import time
from pathlib import Path

from lightwell import build_index

from benchmarks.benchmark import Work


def headers_per_second(work: Work) -> float:
    """Build the index from nothing, again and again, and divide headers by time: listing and splits included."""
    folder = Path(work.photos[0]).parent
    build_index(folder)
    num_headers = 0
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < work.seconds or not num_headers:
        built = build_index(folder)
        assert len(built) == len(built.rows()), "every file has a good header"
        num_headers += len(built)
    return num_headers / taken
