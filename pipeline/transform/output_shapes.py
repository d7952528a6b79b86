"""Which transforms can be drawn without pixels, and how large a picture is after each of them.

A table rather than a trial: applying a transform to find out its size would cost what drawing ahead is to save.
A test compares both, for every class of the installed Albumentations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..geometry import Size
from ..policy.registry import is_composition

_IDENTITY = np.eye(3)
_NEAR_IDENTITY = 1e-8 + 1e-5 * _IDENTITY
"""What ``numpy.allclose`` lets pass."""

ShapeFunction = Callable[[Any, Mapping[str, Any], Size], Size]
"""(transform, what was drawn, size before) -> size after."""

CROPS = frozenset(
    {
        "AtLeastOneBBoxRandomCrop",
        "BBoxSafeRandomCrop",
        "CenterCrop",
        "Crop",
        "RandomCrop",
        "RandomCropFromBorders",
    }
)
CROPS_AND_RESIZES = frozenset({"RandomResizedCrop", "RandomSizedBBoxSafeCrop", "RandomSizedCrop"})
RESIZES = frozenset({"LongestMaxSize", "Resize", "SmallestMaxSize"})

COMPOSITIONS = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "RandomOrder", "OneOrOther"})
"""Compositions that only choose; the others look at pixels themselves."""

PARAMS_FROM_PIXELS = frozenset(
    {
        "CropNonEmptyMaskIfExists",
        "HEStain",
        "MaskDropout",
    }
)
"""Their decisions depend on pixels of the image or of the mask."""

NEEDS_OTHER_INPUTS = frozenset(
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

CHANGES_PIXEL_FORMAT = frozenset(
    {"FromFloat", "Lambda", "Normalize", "ToFloat", "ToRGB", "ToTensor3D", "ToTensorV2"}
)
"""What comes out is no uint8 RGB picture, or nobody knows."""


def _same(_: Any, __: Mapping[str, Any], size: Size) -> Size:
    return size


def _check_not_empty(what: str, size: Size) -> Size:
    """Check a size as Albumentations will: an empty picture fails there, and so it has to fail here."""
    if min(size) < 1:
        raise ValueError(f"{what}: expected at least one pixel, got {size[0]}x{size[1]}")
    return size


def _crop(coords: Sequence[int], size: Size) -> Size:
    x0, y0, x1, y1 = (int(edge) for edge in coords)
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(
            f"expected a crop inside {size[0]}x{size[1]} pixels, got rows {y0} to {y1} and columns {x0} to {x1}"
        )
    return y1 - y0, x1 - x0


def _cropped(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    pads = params.get("pad_params")
    return _crop(params["crop_coords"], _pad(pads, size) if pads else size)


def _cropped_to_size(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    _crop(params["crop_coords"], size)
    return int(transform.size[0]), int(transform.size[1])


def _cropped_to_height_width(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    _crop(params["crop_coords"], size)
    return _height_width(transform, params, size)


def _height_width(transform: Any, _: Mapping[str, Any], __: Size) -> Size:
    return int(transform.height), int(transform.width)


def _scaled(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return max(1, round(size[0] * params["scale"])), max(1, round(size[1] * params["scale"]))


def _random_scaled(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return _check_not_empty("RandomScale", (int(size[0] * params["scale"]), int(size[1] * params["scale"])))


def _pad(pads: Mapping[str, Any], size: Size) -> Size:
    return (
        size[0] + pads["pad_top"] + pads["pad_bottom"],
        size[1] + pads["pad_left"] + pads["pad_right"],
    )


def _padded(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    if min(params[f"pad_{side}"] for side in ("top", "bottom", "left", "right")) < 0:
        raise ValueError("expected a padding of 0 or more, got a negative one; write a crop")
    return _pad(params, size)


def _cropped_and_padded(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    if params["crop_params"]:
        _crop(params["crop_params"], size)
    height, width = size if transform.keep_size else params["result_shape"]
    return int(height), int(width)


def _erased(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    if "seed" not in params:  # Albumentations 2.0.8 then lacks an argument
        raise ValueError(
            f"Erasing: expected a picture with room for its area and ratio, got {size[0]}x{size[1]}"
        )
    return size


def _rotated(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    if not transform.crop_border:
        return size
    return _crop([params[edge] for edge in ("x_min", "y_min", "x_max", "y_max")], size)


def _rotated_90(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return size[::-1] if params["factor"] % 2 else size


def _d4(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    return size[::-1] if params["group_element"] in ("r90", "r270", "t", "hvt") else size


def _transposed(_: Any, __: Mapping[str, Any], size: Size) -> Size:
    return size[::-1]


def is_identity(matrix: Any) -> bool:
    """Say whether Albumentations takes an affine 3x3 matrix for one that changes nothing, and so does nothing."""
    return bool((np.abs(matrix - _IDENTITY) <= _NEAR_IDENTITY).all())


def _to_output_shape(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    height, width = (int(side) for side in params["output_shape"][:2])
    if (height, width) != size and is_identity(params["matrix"]):
        return size
    return height, width


def _warped_by_perspective(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    warped = _check_not_empty("Perspective", (int(params["max_height"]), int(params["max_width"])))
    return size if transform.keep_size else warped


def _downscaled(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    _check_not_empty("Downscale", (round(size[0] * params["scale"]), round(size[1] * params["scale"])))
    return size


def _illuminated(_: Any, params: Mapping[str, Any], size: Size) -> Size:
    oblique = params.get("angle", 0) % 45 != 0
    if size[0] == 4 and (oblique or size[1] == 1):  # OpenCV takes a column of four for a scalar
        raise ValueError("Illumination: expected a picture of more or less than 4 rows, got 4")
    return size


SHAPE_FUNCTIONS: dict[str, ShapeFunction] = {
    "Affine": _to_output_shape,
    "AtLeastOneBBoxRandomCrop": _cropped,
    "BBoxSafeRandomCrop": _cropped,
    "CenterCrop": _cropped,
    "CoarseDropout": _same,
    "ConstrainedCoarseDropout": _same,
    "Crop": _cropped,
    "CropAndPad": _cropped_and_padded,
    "D4": _d4,
    "Downscale": _downscaled,
    "ElasticTransform": _same,
    "Erasing": _erased,
    "FrequencyMasking": _same,
    "GridDistortion": _same,
    "GridDropout": _same,
    "GridElasticDeform": _same,
    "HorizontalFlip": _same,
    "Illumination": _illuminated,
    "LongestMaxSize": _scaled,
    "Morphological": _same,
    "NoOp": _same,
    "OpticalDistortion": _same,
    "Pad": _padded,
    "PadIfNeeded": _padded,
    "Perspective": _warped_by_perspective,
    "PiecewiseAffine": _same,
    "PixelDropout": _same,
    "RandomCrop": _cropped,
    "RandomCropFromBorders": _cropped,
    "RandomGridShuffle": _same,
    "RandomResizedCrop": _cropped_to_size,
    "RandomRotate90": _rotated_90,
    "RandomScale": _random_scaled,
    "RandomSizedBBoxSafeCrop": _cropped_to_height_width,
    "RandomSizedCrop": _cropped_to_size,
    "Resize": _height_width,
    "Rotate": _rotated,
    "SafeRotate": _to_output_shape,
    "ShiftScaleRotate": _to_output_shape,
    "SmallestMaxSize": _scaled,
    "SquareSymmetry": _d4,
    "ThinPlateSpline": _same,
    "TimeMasking": _same,
    "TimeReverse": _same,
    "Transpose": _transposed,
    "VerticalFlip": _same,
    "XYMasking": _same,
}
"""For transforms that move pixels or fail on some sizes; others that only change values keep the size."""


def output_size(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    """Say how large the picture is after a transform that ``needs_pixels_reason`` has nothing against.

    Raises:
        ValueError: Albumentations will fail with these params on a picture of this size.
    """
    return SHAPE_FUNCTIONS.get(type(transform).__name__, _same)(transform, params, size)


def needs_pixels_reason(transform: Any) -> str:
    """Say why a transform or composition cannot be drawn without pixels; empty where it can."""
    name = type(transform).__name__
    if not type(transform).__module__.startswith("albumentations."):
        return f"{name} is your own class and may look at pixels"
    if not is_composition(transform):
        return _leaf_reason(transform, name)
    if name not in COMPOSITIONS:
        return f"{name} looks at pixels while it chooses"
    return next(filter(None, map(needs_pixels_reason, transform.transforms)), "")


def _leaf_reason(transform: Any, name: str) -> str:
    changes_kind = name in CHANGES_PIXEL_FORMAT or (name == "ToGray" and transform.num_output_channels != 3)
    known = name in SHAPE_FUNCTIONS or _derives_from(transform, "ImageOnlyTransform")
    draws_from_pixels = (
        name in PARAMS_FROM_PIXELS
        or getattr(transform, "mask_indices", None) is not None  # ConstrainedCoarseDropout
        or callable(getattr(transform, "mask", None))  # Equalize
        or not getattr(transform, "brightness_by_max", True)  # RandomBrightnessContrast takes the mean
    )
    reasons = (
        (draws_from_pixels, f"{name} decides by looking at pixels"),
        (name in NEEDS_OTHER_INPUTS, f"{name} takes more than an image"),
        (changes_kind, f"{name} yields no uint8 RGB picture"),
        (not known, f"nothing is known of the size after {name}"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _derives_from(transform: Any, base: str) -> bool:
    return any(cls.__name__ == base for cls in type(transform).__mro__)
