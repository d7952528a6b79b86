"""Track keypoints that leave the image during transforms.

A keypoint outside the image keeps its coordinates, and a later transform, such as padding, may move them back inside.
The pixels that it marks are lost nevertheless.
"""

from __future__ import annotations

from typing import Any

import numpy as np

KEYPOINT_FIELDS = ("keypoint_rows", "keypoint_seen")
"""Label fields of keypoints: row number, and 1.0 until the keypoint leaves the image, then 0.0."""


def mark_keypoints_outside(compose: Any) -> None:
    """Make a ``Compose`` set ``keypoint_seen`` to 0 for keypoints outside the image after every transform.

    Args:
        compose: with ``KEYPOINT_FIELDS`` as label fields of its ``keypoint_params``.
    """
    processor = compose.processors["keypoints"]
    check = processor.filter

    def mark_and_check(data: np.ndarray, shape: Any) -> np.ndarray:
        if data.size:
            limits = shape["width"], shape["height"]
            outside = ((data[:, :2] < 0) | (data[:, :2] >= limits)).any(axis=1)
            if outside.any():
                data = data.copy()
                data[outside, -1] = 0.0
        found: np.ndarray = check(data, shape)
        return found

    processor.filter = mark_and_check
