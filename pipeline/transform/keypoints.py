"""Note which keypoints leave the picture on their way through a policy.

A keypoint that leaves the picture keeps its coordinates, and a later transform, a padding for instance, may bring these
back into the picture. What it marks is gone nevertheless.
"""

from __future__ import annotations

from typing import Any

import numpy as np

KEYPOINT_FIELDS = ("keypoint_rows", "keypoint_seen")
"""Label fields of keypoints: their numbers, and 1.0 until they leave the picture, then 0.0."""


def mark_keypoints_outside(compose: Any) -> None:
    """Let a ``Compose`` set ``keypoint_seen`` to 0 wherever Albumentations checks keypoints, after every transform.

    Args:
        compose: has ``keypoint_params`` with ``KEYPOINT_FIELDS`` as its label fields.
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
