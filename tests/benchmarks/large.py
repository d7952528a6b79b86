"""``large``: the work of ``cold`` on pictures of 5 to 12 megapixels, where decoding is nearly all."""

from __future__ import annotations

from pathlib import Path

from .cold import CONTESTANTS, RATIOS
from .contest import Bench
from .photos import enlarge, find_photos, is_plain, is_plain_jpeg, link_photos

NUM_PHOTOS = 64
MEGAPIXELS = 12.0
LARGE = 5_000_000
"""Pixels from which a picture of the user's is large by itself."""


def prepare(data: Path, scratch: Path) -> tuple[str, ...]:
    """Link the user's large pictures, and fill up with smaller photos, enlarged and encoded again."""
    plain = find_photos(data, is_plain_jpeg, what="JPEG photos", most=NUM_PHOTOS)
    large = find_large(data)
    made = enlarge(plain, scratch / "enlarged", MEGAPIXELS, most=NUM_PHOTOS - len(large))
    return link_photos([*large, *made], scratch / "photos")


def find_large(data: Path) -> list[Path]:
    """Find the user's large JPEG and PNG files; there may be none."""
    from lightwell.pipeline.errors import SourceError

    try:
        return find_photos(
            data,
            lambda header: (
                is_plain(header)
                and header.format in ("jpeg", "png")
                and header.width * header.height >= LARGE
            ),
            what="large pictures",
            most=NUM_PHOTOS,
        )
    except SourceError:
        return []


BENCH = Bench(
    name="large",
    about="pictures of 5 to 12 megapixels -> RandomResizedCrop 224 + flip -> batches of 16; "
    "2 threads or worker processes each",
    unit="images/s",
    contestants=CONTESTANTS,
    ratios=RATIOS,
    prepare=prepare,
    batch_size=16,
)
