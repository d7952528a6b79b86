"""Apply sampled transforms to shared, read-only pixels with as few copies as possible.

Bit-identical to ``ParamSampler.apply``, which a test verifies. Resized crops and flips, with which most policies begin,
are written by OpenCV into reused memory: allocating new memory costs the kernel as much as a flip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np

from ..geometry import Size
from ..load.decode.dali import DaliFailure
from ..monitor.watchdog import Watchdog
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES
from ..transform.params import ParamSampler, TransformCall

NON_MUTATING = CROPS | CROPS_AND_RESIZES | RESIZES | {"HorizontalFlip", "VerticalFlip"}
"""Transforms known to write into new memory and never into their input."""
FLIP_CODES = {"HorizontalFlip": 1, "VerticalFlip": 0}
"""Flip codes of ``cv2.flip``."""
MAX_ARRAYS = 64
"""Most scratch arrays kept for reuse."""

T = TypeVar("T")
OutputSlot = Callable[[Size], np.ndarray | None]
"""From an image size to its output array, uint8 HWC; None if there is no such array."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason for which a sample could not be processed."""

    step: str
    """``read``, ``limit``, ``mask``, ``boxes``, ``keypoints``, ``decode``, ``policy`` or ``time``."""
    reason: str
    decoders: tuple[str, ...] = ()
    """Decoders tried, in order."""


class TransformApplier:
    """Applies sampled transforms to pixels. One thread at a time; a result is valid until its ``number`` is used again.

    Args:
        param_sampler: provides the transforms by index.
        watchdog: tracks each sample.
    """

    def __init__(self, param_sampler: ParamSampler, watchdog: Watchdog | None = None) -> None:
        self._param_sampler = param_sampler
        self._watchdog = watchdog or Watchdog(None)
        self._scratch: dict[tuple[int, Size], np.ndarray] = {}
        self._output: np.ndarray | None = None

    def apply_all(
        self,
        keys: Sequence[str],
        images: Sequence[Any],
        calls: Sequence[Sequence[TransformCall]],
        outputs: Sequence[np.ndarray | None],
        decoders: tuple[str, ...] = (),
    ) -> list[Any]:
        """Apply the transforms of each sample of a chunk, as ``apply`` does; failures among the images stay as they are.

        An exception or a timeout makes a ``Failure``, with these ``decoders``.
        """
        return [
            image
            if isinstance(image, Failure | DaliFailure)
            else apply_guarded(
                self._watchdog, key, partial(self.apply, number, image, some, output), decoders
            )
            for number, (key, image, some, output) in enumerate(
                zip(keys, images, calls, outputs, strict=True)
            )
        ]

    def apply(
        self,
        number: int,
        image: np.ndarray,
        calls: Sequence[TransformCall],
        output: np.ndarray | None = None,
    ) -> np.ndarray:
        """Apply transforms as ``ParamSampler.apply`` does, without modifying a read-only ``image``.

        Args:
            number: index of the sample within its chunk.
            image: uint8 HWC.
            calls: transforms with their sampled parameters.
            output: preferred output array, the sample's row of the batch; ignored if the sizes differ.

        Returns:
            An image that may be a read-only view of ``image``, or ``output`` if it was written there.
        """
        self._output = output
        for call in calls:
            transform = self._param_sampler.transform_at(call.transform_index)
            name = type(transform).__name__
            if name == "RandomResizedCrop":
                image = self._resized_crop(number, image, transform, call)
            elif name in FLIP_CODES:
                image = self._flipped(number, image, FLIP_CODES[name])
            else:
                if not image.flags.writeable and name not in NON_MUTATING:
                    image = image.copy()
                image = self._param_sampler.apply(image, (call,))
        return image

    def _resized_crop(
        self, number: int, image: np.ndarray, transform: object, call: TransformCall
    ) -> np.ndarray:
        x0, y0, x1, y1 = call.params["crop_coords"]
        if not (0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]):
            return self._param_sampler.apply(image, (call,))  # Albumentations raises the error
        crop = image[y0:y1, x0:x1]
        height, width = transform.size  # type: ignore[attr-defined]
        if crop.shape[:2] == (height, width):
            return crop
        interpolation = transform._get_interpolation_for_resize(crop.shape[:2], "image")  # type: ignore[attr-defined]
        out = self._output_array(number, (height, width), crop)
        return cv2.resize(crop, (width, height), dst=out, interpolation=interpolation)

    def _flipped(self, number: int, image: np.ndarray, code: int) -> np.ndarray:
        height, width = image.shape[:2]
        return cv2.flip(image, code, dst=self._output_array(number, (height, width), image))

    def _output_array(self, number: int, size: Size, source: np.ndarray) -> np.ndarray:
        """Return memory for a result that does not overlap the source, except in place, which flips allow."""
        out = self._output
        if out is None or out.shape[:2] != size:
            out = self._scratch_array(number, size)
        if source is out or not np.may_share_memory(source, out):
            return out
        return np.empty((*size, 3), np.uint8)

    def _scratch_array(self, number: int, size: Size) -> np.ndarray:
        if (number, size) not in self._scratch:
            if len(self._scratch) >= MAX_ARRAYS:  # images of many sizes: drop old ones
                self._scratch.clear()
            self._scratch[number, size] = np.empty((*size, 3), np.uint8)
        return self._scratch[number, size]


def apply_guarded(
    watchdog: Watchdog, key: str, apply: Callable[[], T], decoders: tuple[str, ...] = ()
) -> T | Failure:
    """Run transforms on one sample, converting exceptions and timeouts to a ``Failure``."""
    started = time.perf_counter()
    try:
        with watchdog.track("policy", key):
            done = apply()
    except Exception as error:  # transforms may raise anything; it is quarantined with the sample
        return policy_failure(error, decoders)
    reason = watchdog.timeout_reason(time.perf_counter() - started)
    return Failure("time", f"the policy {reason}", decoders) if reason else done


def no_output_slot(_: Size) -> None:
    """Return None: the image is not written directly into a batch."""


def policy_failure(error: Exception, decoders: tuple[str, ...] = ()) -> Failure:
    """Return a ``Failure`` that describes a transform's exception in one line."""
    return Failure("policy", f"{type(error).__name__}: {' '.join(str(error).split())}", decoders)
