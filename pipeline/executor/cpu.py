"""CPU stage: decodes files and applies sampled transforms with OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ..geometry import Size
from ..load.decode.dali import DaliDecoder
from ..load.decode.decoder import DecodedImage, EncodedImage, ImageDecoder
from ..load.decode.fallback import FallbackLog
from ..load.decode.plan import DecodePlan, plan_decode
from ..monitor.step_timer import StepTimer
from ..monitor.watchdog import Watchdog
from ..transform.params import ParamSampler, SampledParams
from .apply import TransformApplier

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


class ImageStage(Protocol):
    """Decodes files and applies sampled transforms."""

    def run(
        self,
        files: Sequence[EncodedImage],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> Sequence[Any]:
        """Return uint8 HWC images or ``Failure`` objects.

        Images are valid until the next call, and may or may not lie in their output slots.
        """
        ...

    def plan(self, file: EncodedImage, sampled: SampledParams) -> DecodePlan:
        """Decide how a file is decoded."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class CpuStage:
    """Decodes with DALI, OpenCV or Pillow and applies transforms with Albumentations' own functions.

    One thread at a time; call ``close`` when done.
    """

    def __init__(
        self,
        param_sampler: ParamSampler,
        *,
        max_batch_size: int,
        may_reduce: bool,
        timer: StepTimer | None = None,
        watchdog: Watchdog | None = None,
        fallbacks: FallbackLog | None = None,
    ) -> None:
        self._param_sampler = param_sampler
        self._applier = TransformApplier(param_sampler)
        self._timer = timer or StepTimer("process")
        self._watchdog = watchdog or Watchdog(None)
        self._may_reduce = may_reduce
        dali = DaliDecoder(max_batch_size=max_batch_size, num_threads=1)
        self._chain = ImageDecoder(dali, self._watchdog, fallbacks)

    def run(
        self,
        files: Sequence[EncodedImage],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> list[np.ndarray | Failure]:
        """Return the images after all sampled transforms."""
        decodings = [self.plan(file, one) for file, one in zip(files, sampled, strict=True)]
        self._timer.enter("decode")
        decoded = self.decode(files, decodings)
        self._timer.enter(
            "transform", sum(image.nbytes for image in decoded if isinstance(image, np.ndarray))
        )
        return [
            self._apply(number, file.key, image, decoding, output_slot(one.size))
            for number, (file, image, decoding, one, output_slot) in enumerate(
                zip(files, decoded, decodings, sampled, output_slots, strict=True)
            )
        ]

    def plan(self, file: EncodedImage, sampled: SampledParams) -> DecodePlan:
        """Decide how a file is decoded."""
        may_reduce = self._may_reduce and file.supports_reduced()
        return plan_decode(
            sampled,
            self._param_sampler.transform_at,
            file.size,
            num_bytes=len(file.data),
            may_reduce=may_reduce,
            subsampling_ratio=file.chroma_subsampling_ratio() if may_reduce else 1,
        )

    def decode(
        self, files: Sequence[EncodedImage], decodings: Sequence[DecodePlan]
    ) -> list[np.ndarray | Failure]:
        """Decode files as planned; pixels are valid until the next call."""
        return [self._image_of(decoded) for decoded in self._chain.decode(files, decodings)]

    def _image_of(self, decoded: DecodedImage) -> np.ndarray | Failure:
        if decoded.image is None:
            return Failure("decode", decoded.reason, decoded.decoders)
        if reason := self._watchdog.timeout_reason(decoded.seconds):
            return Failure("time", f"decoding {reason}", decoded.decoders)
        return decoded.image

    def _apply(
        self,
        number: int,
        key: str,
        image: np.ndarray | Failure,
        decoding: DecodePlan,
        output: np.ndarray | None,
    ) -> np.ndarray | Failure:
        if isinstance(image, Failure):
            return image
        return apply_guarded(
            self._watchdog, key, lambda: self._applier.apply(number, image, decoding.calls, output)
        )

    def close(self) -> None:
        """Close DALI."""
        self._chain.close()


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
