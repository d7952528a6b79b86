"""A transform of somebody else that takes its time."""

from __future__ import annotations

import threading
import time
from typing import Any

import albumentations as A
import numpy as np

SLOW_PIXEL = 77
RELEASE = threading.Event()


class Sleepy(A.ImageOnlyTransform):
    """Sleeps at pictures that begin with ``SLOW_PIXEL``, or in threads of a feed until ``RELEASE`` is set."""

    def __init__(self, seconds: float = 0.0, endless: bool = False, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.seconds = seconds
        self.endless = endless

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        if self.endless and threading.current_thread().name.startswith("lightwell"):
            RELEASE.wait(30)
        elif img[0, 0, 0] == SLOW_PIXEL:
            time.sleep(self.seconds)
        return img
