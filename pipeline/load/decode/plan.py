"""Decode plan: which part of an image is decoded at which size, from its size and its sampled transforms.

* ``full``: the full image.
* ``region``: only the region of the leading crops; bit-identical.
* ``reduced``: the image at 1/2, 1/4 or 1/8 by the inverse DCT of a JPEG, then one resampling to the output of the
  leading crops and resize. Different pixels: it averages where ``cv2.INTER_LINEAR`` skips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2

from ...geometry import Region, Size
from ...transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, output_size
from ...transform.params import SampledParams, TransformCall

SHRINKS = (8, 4, 2)
"""DCT reduction factors, largest first."""

RESAMPLED = {
    cv2.INTER_LINEAR: cv2.INTER_CUBIC,
    cv2.INTER_CUBIC: cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4: cv2.INTER_LANCZOS4,
    cv2.INTER_AREA: cv2.INTER_AREA,
}
"""Interpolation after a reduced decode, by requested interpolation; nearest is not supported, as it needs exact pixels.
The DCT already smooths, so that cubic is closer than linear to linear interpolation of the full image."""

# Nanoseconds on one core, measured on photos of 0.2 and 12 megapixels. Only their ratios matter.
_NS_PER_BYTE = 3.8
_NS_PER_PIXEL = {1: 3.4, 2: 0.95, 4: 0.65, 8: 0.45}
_NS_PER_REGION_PIXEL = 4.2


@dataclass(frozen=True, slots=True)
class Resampling:
    """Resampling of a reduced image to the output of the leading crops and resize."""

    size: Size
    interpolation: int


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """How one image is decoded, and the remaining transforms."""

    kind: Literal["full", "region", "reduced"]
    region: Region
    """The region to decode, in full-size coordinates."""
    calls: tuple[TransformCall, ...]
    """Sampled transforms that decoding does not perform."""
    shrink: int = 1
    resampling: Resampling | None = None
    """For ``reduced``."""


def full_region(size: Size) -> Region:
    """Return the region of the full image."""
    return Region(0, 0, *size)


def plan_decode(
    sampled: SampledParams,
    transform_at: Callable[[int], Any],
    size: Size,
    *,
    num_bytes: int,
    may_reduce: bool,
    subsampling_ratio: int = 1,
) -> DecodePlan:
    """Decide how an image is decoded.

    Args:
        sampled: its sampled transforms.
        transform_at: returns a transform by index.
        size: height and width of the upright image.
        num_bytes: of the file, which determine the cost of entropy decoding.
        may_reduce: whether it is a JPEG and the plan does not require exact decoding.
        subsampling_ratio: factor by which it has to shrink beyond the DCT reduction; see ``chroma_subsampling_ratio``.
    """
    region, num_used, rest = _leading_crops(sampled.calls, transform_at, size)
    if may_reduce:
        reduced = _reduce(region, sampled, num_used, transform_at, size, num_bytes, subsampling_ratio)
        if reduced is not None:
            return reduced
    if region == full_region(size) or _full_is_faster(region, size, num_bytes):
        return DecodePlan("full", full_region(size), sampled.calls)
    return DecodePlan("region", region, rest)


def _leading_crops(
    calls: Sequence[TransformCall], transform_at: Callable[[int], Any], size: Size
) -> tuple[Region, int, tuple[TransformCall, ...]]:
    """Combine the leading crops.

    Returns:
        Their region; the number of calls fully contained in it; and the remaining calls after decoding it, of which the
        first may be a resized crop whose crop now covers the full image.
    """
    region = full_region(size)
    for number, call in enumerate(calls):
        name = type(transform_at(call.transform_index)).__name__
        if name not in CROPS | CROPS_AND_RESIZES or call.params.get("pad_params") is not None:
            return region, number, tuple(calls[number:])
        x0, y0, x1, y1 = (int(value) for value in call.params["crop_coords"])
        if not (0 <= x0 < x1 <= region.size[1] and 0 <= y0 < y1 <= region.size[0]):
            return region, number, tuple(calls[number:])  # Albumentations raises the error
        region = Region(region.y0 + y0, region.x0 + x0, region.y0 + y1, region.x0 + x1)
        if name in CROPS_AND_RESIZES:
            params = {**call.params, "crop_coords": (0, 0, x1 - x0, y1 - y0)}
            resized = replace(call, params=params, size=region.size)
            return region, number, (resized, *calls[number + 1 :])
    return region, len(calls), ()


def _reduce(
    region: Region,
    sampled: SampledParams,
    num_used: int,
    transform_at: Callable[[int], Any],
    size: Size,
    num_bytes: int,
    subsampling_ratio: int,
) -> DecodePlan | None:
    """Plan a reduced decode where the leading crops are followed by a resize that shrinks by two or more."""
    if num_used == len(sampled.calls):
        return None
    call = sampled.calls[num_used]
    transform = transform_at(call.transform_index)
    if type(transform).__name__ not in CROPS_AND_RESIZES | RESIZES:
        return None
    target = output_size(transform, call.params, call.size)
    interpolation = _interpolation(transform, target, region.size)
    scale = min(region.size[0] / target[0], region.size[1] / target[1])
    shrink = next((s for s in SHRINKS if s * subsampling_ratio <= scale), 1)
    if shrink == 1 or interpolation not in RESAMPLED:
        return None
    if _region_ns(region, size, num_bytes) < _full_ns(size, num_bytes, shrink):
        return None
    resampling = Resampling(target, RESAMPLED[interpolation])
    return DecodePlan("reduced", region, sampled.calls[num_used + 1 :], shrink, resampling)


def _interpolation(transform: Any, target: Size, size: Size) -> int:
    """Return the interpolation that a transform's ``apply`` would use."""
    shrinks = target[0] < size[0] or target[1] < size[1]
    if getattr(transform, "area_for_downscale", None) in ("image", "image_mask") and shrinks:
        return cv2.INTER_AREA
    return int(transform.interpolation)


def _full_ns(size: Size, num_bytes: int, shrink: int) -> float:
    return _NS_PER_BYTE * num_bytes + _NS_PER_PIXEL[shrink] * size[0] * size[1]


def _region_ns(region: Region, size: Size, num_bytes: int) -> float:
    height, width = region.size
    return _NS_PER_BYTE * num_bytes * region.y1 / size[0] + _NS_PER_REGION_PIXEL * height * width


def _full_is_faster(region: Region, size: Size, num_bytes: int) -> bool:
    return _full_ns(size, num_bytes, 1) <= _region_ns(region, size, num_bytes)
