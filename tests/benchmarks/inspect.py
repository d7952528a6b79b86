"""``inspect``: measures and checks of a dataset without a model."""

from __future__ import annotations

from pathlib import Path

from .benchmark import Benchmark, Contestant, Ratio
from .photos import find_photos, is_plain, link_photos, some

MOST_PHOTOS = 512


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the photos that all contestants read."""
    found = find_photos(data, is_plain, most=MOST_PHOTOS)
    return link_photos(some(found, "photos", data), scratch / "photos")


BENCH = Benchmark(
    name="inspect",
    about="files in the page cache -> all measures -> duplicates, blurry, dark, light, gray, plain and odd images; "
    "2 threads or worker processes",
    unit="images/s",
    contestants=(
        Contestant("ours", "inspecting:ours"),
        Contestant("ours measures", "inspecting:measures"),
        Contestant("decoding", "inspecting:decoding"),
        Contestant("cleanvision", "inspecting:cleanvision", needs="cleanvision"),
    ),
    # The time of all measures with decoding relative to decoding alone: the inverse ratio of the speeds.
    ratios=(Ratio("cleanvision", "ours", "cleanvision"), Ratio("one pass", "decoding", "ours measures")),
    prepare=prepare,
    streams=False,
)
