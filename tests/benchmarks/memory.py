"""``memory``: does the peak grow with the number of samples? Each run is a process of its own, which tells its peak."""

from __future__ import annotations

from pathlib import Path

from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index

from .benchmark import Benchmark, Contestant, Ratio
from .photos import enlarge, find_photos, is_plain_jpeg, link_photos, some

FEW, MANY = 2_000, 50_000
LARGE_FEW, LARGE_MANY = 1_280, 5_120
NUM_LARGE = 16
"""Pictures that are enlarged; more names than that are links to them."""
MEGAPIXELS = 12.0


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the photos under many names, enlarge a few, and index both: few, many and large."""
    found = some(find_photos(data, is_plain_jpeg, most=FEW), "JPEG photos", data)
    photos = link_photos(found, scratch / "photos", at_least=MANY)
    large = list(enlarge(found, scratch / "enlarged", MEGAPIXELS, most=NUM_LARGE))
    link_photos(large, scratch / "large", at_least=LARGE_MANY)
    for folder, few, many in (("photos", FEW, MANY), ("large", LARGE_FEW, LARGE_MANY)):
        index = build_index(scratch / folder)
        for number in (few, many):
            Index(index.table.slice(0, number), index.classes).save(scratch / f"{folder}-{number}.parquet")
    return photos


BENCH = Benchmark(
    name="memory",
    about="peak resident memory of a process that reads so many samples: JPEG files, or 2,000 of them from the cache "
    "again and again, -> RandomResizedCrop 224 + flip -> batches of 64; 2 threads",
    unit="MB",
    contestants=(
        Contestant(f"ours {FEW:,}", "memory:few"),
        Contestant(f"ours {MANY:,}", "memory:many"),
        Contestant(f"ours {FEW:,} cached", "memory:few_cached"),
        Contestant(f"ours {MANY:,} cached", "memory:many_cached"),
        Contestant(f"ours {LARGE_FEW} of 12 MP", "memory:few_large"),
        Contestant(f"ours {LARGE_MANY:,} of 12 MP", "memory:many_large"),
    ),
    ratios=(
        Ratio("growth", f"ours {MANY:,}", f"ours {FEW:,}"),
        Ratio("growth cached", f"ours {MANY:,} cached", f"ours {FEW:,} cached"),
        Ratio("growth 12 MP", f"ours {LARGE_MANY:,} of 12 MP", f"ours {LARGE_FEW} of 12 MP"),
    ),
    prepare=prepare,
    streams=False,
)
