"""``probe``: ten epochs of a head on a frozen network, whose features Lightwell computes once."""

from __future__ import annotations

from pathlib import Path

from .benchmark import Benchmark, Contestant, Ratio
from .photos import find_photos, is_plain_jpeg, link_photos, some

MOST_PHOTOS = 512


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the JPEGs that all contestants take alike."""
    found = find_photos(data, is_plain_jpeg, most=MOST_PHOTOS)
    return link_photos(some(found, "JPEG photos", data), scratch / "photos")


BENCH = Benchmark(
    name="probe",
    about="ten epochs of the head of EfficientNet-lite0 at 224 px, the rest frozen; 2 threads or worker processes",
    unit="s",
    contestants=(
        Contestant("ours", "probing:ours"),
        Contestant("one pass", "probing:one_pass"),
        Contestant("usual way", "probing:usual_way", needs="torchvision"),
    ),
    ratios=(Ratio("one pass", "ours", "one pass"), Ratio("usual way", "usual way", "ours")),
    prepare=prepare,
    batch_size=32,
    streams=False,
)
