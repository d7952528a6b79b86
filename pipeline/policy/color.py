"""Colour conversions that Albumentations lacks, as Albumentations transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import load_albumentations

_ImageOnlyTransform: Any = load_albumentations().ImageOnlyTransform


class ToHSV(_ImageOnlyTransform):  # type: ignore[misc]
    """Convert RGB to HSV with OpenCV's ranges: hue 0..179, saturation and value 0..255; uint8 only."""

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:  # noqa: ARG002
        """Convert one uint8 HWC RGB image."""
        import cv2

        return np.asarray(cv2.cvtColor(img, cv2.COLOR_RGB2HSV))
