"""CPU stage: decodes files and applies sampled transforms with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..load.decode.dali import DaliDecoder
from ..load.decode.decoder import DecodedImage, EncodedImage, ImageDecoder
from ..load.decode.fallback import FallbackLog
from ..load.decode.plan import DecodePlan, plan_decode
from ..monitor.step_timer import StepTimer
from ..monitor.watchdog import Watchdog
from ..transform.params import ParamSampler, SampledParams
from .apply import Failure, OutputSlot, TransformApplier


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
        self._timer = timer or StepTimer("process")
        self._watchdog = watchdog or Watchdog(None)
        self._applier = TransformApplier(param_sampler, self._watchdog)
        self._may_reduce = may_reduce
        dali = DaliDecoder(max_batch_size=max_batch_size, watchdog=self._watchdog)
        self._chain = ImageDecoder(dali, self._watchdog, fallbacks)

    def run(
        self,
        files: Sequence[EncodedImage],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> list[np.ndarray | Failure]:
        """Return the images after all sampled transforms.

        They are valid until the next call, and may or may not lie in their output slots.
        """
        decodings = [self.plan(file, one) for file, one in zip(files, sampled, strict=True)]
        self._timer.enter("decode")
        decoded = self.decode(files, decodings)
        self._timer.enter(
            "transform", sum(image.nbytes for image in decoded if isinstance(image, np.ndarray))
        )
        return self._applier.apply_all(
            [file.key for file in files],
            decoded,
            [decoding.calls for decoding in decodings],
            [output_slot(one.size) for one, output_slot in zip(sampled, output_slots, strict=True)],
        )

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

    def close(self) -> None:
        """Close DALI."""
        self._chain.close()
