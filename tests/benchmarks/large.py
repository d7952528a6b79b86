"""``large``: the work of ``cold`` on pictures of 5 to 12 megapixels, where decoding is nearly all."""

from __future__ import annotations

from pathlib import Path

from lightwell.pipeline.formats.headers import Header

from .benchmark import Benchmark
from .cold import CONTESTANTS, RATIOS
from .photos import enlarge, find_photos, is_plain, is_plain_jpeg, link_photos, some

NUM_PHOTOS = 64
MEGAPIXELS = 12.0
LARGE = 5_000_000
"""Pixels from which a picture of the user's is large by itself."""


def is_large(header: Header) -> bool:
    """Whether every contestant takes it alike and it is large by itself."""
    large = header.width * header.height >= LARGE
    return large and is_plain(header) and header.format in ("jpeg", "png")


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the user's large pictures, and fill up with smaller photos, enlarged and encoded again."""
    large = find_photos(data, is_large, most=NUM_PHOTOS)
    small = find_photos(data, lambda header: is_plain_jpeg(header) and not is_large(header), most=NUM_PHOTOS)
    made = enlarge(small, scratch / "enlarged", MEGAPIXELS, most=NUM_PHOTOS - len(large))
    return link_photos(some([*large, *made], "photos", data), scratch / "photos")


BENCH = Benchmark(
    name="large",
    about="pictures of 5 to 12 megapixels -> RandomResizedCrop 224 + flip -> batches of 16; "
    "2 threads or worker processes each",
    unit="images/s",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
    batch_size=16,
)
