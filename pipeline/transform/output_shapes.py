"""Output shapes of transforms, and which transforms can be sampled without pixels.

Shapes are computed, not tried out: applying a transform to find its output size would cost what early sampling saves.
A test compares both for every class of the installed Albumentations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..geometry import Size
from ..policy.registry import is_composition

_IDENTITY = np.eye(3)
_NEAR_IDENTITY = 1e-8 + 1e-5 * _IDENTITY
"""Tolerance of ``numpy.allclose``."""

ShapeFunction = Callable[[Any, Mapping[str, Any], Size], Size]
"""(transform, sampled parameters, input size) -> output size."""

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
"""Compositions that only select transforms; others access pixels themselves."""

PARAMS_FROM_PIXELS = frozenset(
    {
        "CropNonEmptyMaskIfExists",
        "HEStain",
        "MaskDropout",
    }
)
"""Their parameters depend on pixels of the image or the mask."""

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
"""They take other images or texts from the data."""

CHANGES_PIXEL_FORMAT = frozenset(
    {"FromFloat", "Lambda", "Normalize", "ToFloat", "ToRGB", "ToTensor3D", "ToTensorV2"}
)
"""Their output is not, or not known to be, a uint8 RGB image."""


def _same(_: Any, __: Mapping[str, Any], size: Size) -> Size:
    return size


def _check_not_empty(what: str, size: Size) -> Size:
    """Check that a size is not empty, as Albumentations does."""
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
    if "seed" not in params:  # Albumentations 2.0.8 then misses an argument
        raise ValueError(
            f"Erasing: expected an image large enough for its area and ratio, got {size[0]}x{size[1]}"
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
    """Return whether Albumentations treats an affine 3x3 matrix as the identity."""
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
    if size[0] == 4 and (oblique or size[1] == 1):  # OpenCV treats a column of four as a scalar
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
"""For transforms that move pixels or fail on some sizes; transforms that only change values keep the size."""


def output_size(transform: Any, params: Mapping[str, Any], size: Size) -> Size:
    """Return the output size of a transform for which ``needs_pixels_reason`` is empty.

    Raises:
        ValueError: Albumentations fails with these params on an image of this size.
    """
    return SHAPE_FUNCTIONS.get(type(transform).__name__, _same)(transform, params, size)


def needs_pixels_reason(transform: Any) -> str:
    """Return why a transform or composition cannot be sampled without pixels; empty if it can."""
    name = type(transform).__name__
    if not type(transform).__module__.startswith("albumentations."):
        return f"{name} is a custom class and may access pixels"
    if not is_composition(transform):
        return _leaf_reason(transform, name)
    if name not in COMPOSITIONS:
        return f"{name} selects transforms by pixels"
    return next(filter(None, map(needs_pixels_reason, transform.transforms)), "")


def _leaf_reason(transform: Any, name: str) -> str:
    changes_format = name in CHANGES_PIXEL_FORMAT or (name == "ToGray" and transform.num_output_channels != 3)
    known = name in SHAPE_FUNCTIONS or _derives_from(transform, "ImageOnlyTransform")
    params_from_pixels = (
        name in PARAMS_FROM_PIXELS
        or getattr(transform, "mask_indices", None) is not None  # ConstrainedCoarseDropout
        or callable(getattr(transform, "mask", None))  # Equalize
        or not getattr(transform, "brightness_by_max", True)  # RandomBrightnessContrast takes the mean
    )
    reasons = (
        (params_from_pixels, f"{name} computes parameters from pixels"),
        (name in NEEDS_OTHER_INPUTS, f"{name} needs other inputs than an image"),
        (changes_format, f"{name} does not yield a uint8 RGB image"),
        (not known, f"the output size of {name} is unknown"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _derives_from(transform: Any, base: str) -> bool:
    return any(cls.__name__ == base for cls in type(transform).__mro__)
