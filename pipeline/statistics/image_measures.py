"""All measures of a decoded image, taken in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from .borders import border_measures
from .defects import defect_measures
from .hashes import HASH_BYTES, hash_measures
from .spectrum import NAMES as SPECTRUM_NAMES
from .spectrum import spectrum_measures
from .texture import NUM_PATTERNS, glcm_measures, lbp_histogram
from .tones import (
    NUM_HISTOGRAM_BINS,
    PERCENTILES,
    channel_measures,
    color_measures,
    histogram_of,
    is_gray,
    tone_measures,
)
from .working_copies import make_working_copies

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEFECTS = ("sharpness", "working_sharpness", "softness", "noise", "least_noise", "blockiness")
IMAGE_SCHEMA = pa.schema(
    [
        *((name, pa.float32()) for name in ("brightness", "contrast", "share_dark", "share_light")),
        *((f"brightness_p{percent}", pa.uint8()) for percent in PERCENTILES),
        *((name, pa.float32()) for name in ("exposure", "entropy")),
        ("histogram", pa.list_(pa.float32(), NUM_HISTOGRAM_BINS)),
        *((f"{name}_{channel}", pa.float32()) for name in ("mean", "std") for channel in "rgb"),
        *((name, pa.float32()) for name in ("white_balance_red", "white_balance_blue")),
        *((name, pa.float32()) for name in ("colorfulness", "saturation")),
        ("is_gray", pa.bool_()),
        *((name, pa.float32()) for name in _DEFECTS),
        *((name, pa.float32()) for name in ("border_vertical", "border_horizontal", "border_level")),
        *((name, pa.float32()) for name in SPECTRUM_NAMES),
        *((f"glcm_{name}", pa.float32()) for name in ("contrast", "homogeneity", "energy", "correlation")),
        ("lbp", pa.list_(pa.float32(), NUM_PATTERNS)),
        *((name, pa.binary(HASH_BYTES)) for name in ("phash", "phash_invariant", "dhash")),
    ]
)
"""Columns of ``image_measures``; the functions that it calls describe them, with sources and ranges."""


def image_measures(image: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure a decoded image.

    Brightness and channels are measured on rows, sharpness, noise, blockiness and frequencies on tiles at full resolution;
    color, texture and hashes on smaller copies (see ``WorkingCopies``). Results do not depend on the number of threads.

    Args:
        image: RGB, (h, w, 3), at least 1x1, in any memory order.

    Returns:
        A value for each column of ``IMAGE_SCHEMA``; None for what the image has not, such as the spectrum of a constant one.
    """
    image = np.ascontiguousarray(image)
    copies = make_working_copies(image)
    return {
        **tone_measures(histogram_of(np.asarray(cv2.cvtColor(copies.sampled_rows, cv2.COLOR_RGB2GRAY)))),
        **channel_measures(copies.sampled_rows),
        **color_measures(copies.color),
        "is_gray": is_gray(image, copies.color),
        **defect_measures(copies),
        **border_measures(copies.working_gray),
        **spectrum_measures(copies.tiles),
        **glcm_measures(copies.working_gray),
        "lbp": lbp_histogram(copies.working_gray),
        **hash_measures(copies.working_gray),
    }
