"""``index``: headers a second, from files in the page cache to a finished index."""

from __future__ import annotations

from pathlib import Path

from .benchmark import Benchmark, Contestant, Ratio
from .photos import find_photos, link_photos, some

GOAL = 3_000.0
"""Headers a second on two cores."""
NUM_FILES = 5_000


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the pictures under so many names that starting up does not count."""
    found = find_photos(data, lambda header: header.status == "ok", most=NUM_FILES)
    return link_photos(some(found, "pictures", data), scratch / "photos", at_least=NUM_FILES)


BENCH = Benchmark(
    name="index",
    about="files in the page cache -> index, as `lightwell index` builds it from nothing",
    unit="headers/s",
    contestants=(Contestant("ours", "headers:headers_per_second"),),
    ratios=(Ratio("goal", "ours", GOAL),),
    prepare=prepare,
    streams=False,
)
