"""Memory estimates of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from image_bytes import EOI, saved
from lightwell.pipeline.geometry import Region
from lightwell.pipeline.load.decode.decoder import EncodedImage
from lightwell.pipeline.load.decode.plan import DecodePlan
from lightwell.pipeline.memory.estimates import estimate_sample_bytes
from lightwell.pipeline.transform.params import SampledParams
from pictures import make_picture

PROGRESSIVE = saved(make_picture(1, 40, 56), "JPEG", progressive=True)


@dataclass(frozen=True)
class NothingDrawn:
    """Sampled parameters without any transform."""

    size: tuple[int, int] = (0, 0)
    calls: tuple[()] = ()


def test_a_region_of_a_jpeg_with_missing_scans_counts_as_the_full_image() -> None:
    """It is fully decoded and cropped, so that all paths yield the same pixels."""
    decoding = DecodePlan("region", Region(0, 0, 10, 10), ())
    sampled = cast("SampledParams", NothingDrawn())
    second = PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)
    sizes = [
        estimate_sample_bytes(EncodedImage(data, "jpeg", "RGB", 1, (40, 56)), decoding, sampled)
        for data in (PROGRESSIVE, PROGRESSIVE[:second] + EOI)
    ]
    assert sizes == [3 * 10 * 10, 3 * 40 * 56]
