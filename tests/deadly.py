"""A transform of somebody else that ends the process that it runs in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np


class Deadly(A.ImageOnlyTransform):
    """Ends its process at pictures of a width, as a decoder's bug would, while a file is there."""

    def __init__(self, width: int, trap: str, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.width = width
        self.trap = trap

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        is_picture = img.shape[1] == self.width and img.any()  # else a probe without pixels
        if is_picture and Path(self.trap).exists():
            os._exit(139)
        return img
