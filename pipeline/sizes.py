"""Which transforms can be drawn without pixels, and how large a picture is after each of them.

A table rather than a trial: applying a transform to find out its size would cost what drawing ahead is to save.
A test compares both, for every class of the installed Albumentations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Size = tuple[int, int]
"""Height and width in pixels."""

SizeRule = Callable[[Any, Mapping[str, Any], Size], Size]
"""(transform, what was drawn, size before) -> size after."""

COMPOSITIONS = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "RandomOrder", "OneOrOther"})
"""Compositions that only choose; the others look at pixels themselves."""

DRAWS_FROM_PIXELS = frozenset(
    {
        "ConstrainedCoarseDropout",
        "CropNonEmptyMaskIfExists",
        "HEStain",
        "MaskDropout",
    }
)
"""Their decisions depend on pixels of the image or of the mask."""

NEEDS_MORE_THAN_AN_IMAGE = frozenset(
    {
        "FDA",
        "HistogramMatching",
        "Mosaic",
        "OverlayElements",
        "PixelDistributionAdaptation",
        "RandomCropNearBBox",
        "TextImage",
    }
)
"""They take other pictures or texts out of the data."""

CHANGES_KIND = frozenset({"FromFloat", "Lambda", "Normalize", "ToFloat", "ToRGB", "ToTensor3D", "ToTensorV2"})
"""What comes out is no uint8 RGB picture, or nobody knows."""


def _same(_: Any, __: Mapping[str, Any], size: Size) -> Size:
    return size


def _cropped(_: Any, params: Mapping[str, Any], size: Size) -> Size:  # noqa: ARG001
    x0, y0, x1, y1 = params["crop_coords"]
    return y1 - y0, x1 - x0


def _of_transform(transform: Any, _: Mapping[str, Any], __: Size) -> Size:
    return int(transform.size[0]), int(transform.size[1])


def _height_width(transform: Any, _: Mapping[str, Any], __: Size) -> Size:
    return int(transform.height), int(transform.width)


def _scaled(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return max(1, round(size[0] * params["scale"])), max(1, round(size[1] * params["scale"]))


def _random_scaled(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return int(size[0] * params["scale"]), int(size[1] * params["scale"])


def _padded(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return (
        size[0] + params["pad_top"] + params["pad_bottom"],
        size[1] + params["pad_left"] + params["pad_right"],
    )


def _cropped_and_padded(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    height, width = size if transform.keep_size else params["result_shape"]
    return int(height), int(width)


def _rotated(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    if not transform.crop_border:
        return size
    return params["y_max"] - params["y_min"], params["x_max"] - params["x_min"]


def _quarter_turned(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return size[::-1] if params["factor"] % 2 else size


def _of_square(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return size[::-1] if params["group_element"] in ("r90", "r270", "t", "hvt") else size


def _turned(_: Any, __: Mapping[str, Any], size: Size) -> Size:
    return size[::-1]


def _to_output_shape(_: Any, params: Mapping[str, Any], __: Size) -> Size:
    height, width = params["output_shape"][:2]
    return int(height), int(width)


def _in_perspective(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    return size if transform.keep_size else (int(params["max_height"]), int(params["max_width"]))


RULES: dict[str, SizeRule] = {
    "Affine": _to_output_shape,
    "AtLeastOneBBoxRandomCrop": _cropped,
    "BBoxSafeRandomCrop": _cropped,
    "CenterCrop": _cropped,
    "CoarseDropout": _same,
    "Crop": _cropped,
    "CropAndPad": _cropped_and_padded,
    "D4": _of_square,
    "ElasticTransform": _same,
    "Erasing": _same,
    "FrequencyMasking": _same,
    "GridDistortion": _same,
    "GridDropout": _same,
    "GridElasticDeform": _same,
    "HorizontalFlip": _same,
    "LongestMaxSize": _scaled,
    "Morphological": _same,
    "NoOp": _same,
    "OpticalDistortion": _same,
    "Pad": _padded,
    "PadIfNeeded": _padded,
    "Perspective": _in_perspective,
    "PiecewiseAffine": _same,
    "PixelDropout": _same,
    "RandomCrop": _cropped,
    "RandomCropFromBorders": _cropped,
    "RandomGridShuffle": _same,
    "RandomResizedCrop": _of_transform,
    "RandomRotate90": _quarter_turned,
    "RandomScale": _random_scaled,
    "RandomSizedBBoxSafeCrop": _height_width,
    "RandomSizedCrop": _of_transform,
    "Resize": _height_width,
    "Rotate": _rotated,
    "SafeRotate": _to_output_shape,
    "ShiftScaleRotate": _to_output_shape,
    "SmallestMaxSize": _scaled,
    "SquareSymmetry": _of_square,
    "ThinPlateSpline": _same,
    "TimeMasking": _same,
    "TimeReverse": _same,
    "Transpose": _turned,
    "VerticalFlip": _same,
    "XYMasking": _same,
}
"""For transforms that move pixels; those that only change values keep the size."""


def size_after(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    """Say how large the picture is after a transform that ``why_unpredictable`` has nothing against."""
    return RULES.get(type(transform).__name__, _same)(transform, params, size)


def why_unpredictable(transform: Any) -> str:
    """Say why a transform or composition cannot be drawn without pixels; empty where it can."""
    name = type(transform).__name__
    if not type(transform).__module__.startswith("albumentations."):
        return f"{name} is your own class and may look at pixels"
    if hasattr(transform, "transforms"):
        if name not in COMPOSITIONS:
            return f"{name} looks at pixels while it chooses"
        return next(filter(None, map(why_unpredictable, transform.transforms)), "")
    if name in DRAWS_FROM_PIXELS:
        return f"{name} decides by looking at pixels"
    if name in NEEDS_MORE_THAN_AN_IMAGE:
        return f"{name} takes more than an image"
    if name in CHANGES_KIND or (name == "ToGray" and transform.num_output_channels != 3):
        return f"{name} yields no uint8 RGB picture"
    if name in RULES or _keeps_pixels_in_place(transform):
        return ""
    return f"nothing is known of the size after {name}"


def _keeps_pixels_in_place(transform: Any) -> bool:
    return any(base.__name__ == "ImageOnlyTransform" for base in type(transform).__mro__)
