"""DALI stage: decodes files and applies all lowered transforms in one DALI graph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..load.decode.dali import dali_error_message
from ..load.decode.decoder import EncodedImage
from ..load.decode.fallback import FallbackLog
from ..load.decode.orientation import stored_region
from ..load.decode.plan import DecodePlan, plan_decode
from ..monitor.step_timer import StepTimer
from ..monitor.watchdog import Watchdog
from ..transform.dali.graph import GraphTransform, LoweredGraph
from ..transform.dali.lowering import Device
from ..transform.dali.op_registry import lowering_of
from ..transform.params import ParamSampler, SampledParams, TransformCall
from .cpu import CpuStage, Failure, OutputSlot, apply_guarded


@dataclass(frozen=True, slots=True)
class _DaliFailure:
    """Reason for which DALI did not produce an image."""

    reason: str


class DaliStage:
    """Decodes and transforms chunks in DALI, and applies the transforms after the lowered ones with OpenCV.

    Files that DALI cannot decode or fails on are processed by the CPU stage, so that one bad file affects no other.
    One thread at a time; call ``close`` when done.

    Args:
        param_sampler: provides the transforms by index.
        num_transforms: number of leading transforms that run in the graph.
        fallback: processes the files that the graph cannot.
        device: of the graph.
        max_batch_size: most samples per run.
        num_threads: of DALI, for decoding and for CPU operators.
        timer: of the thread; the whole graph is counted as decoding, as DALI does not report parts.
        watchdog: tracks each run of the graph.
        fallbacks: logs files processed by the CPU stage.
    """

    def __init__(
        self,
        param_sampler: ParamSampler,
        num_transforms: int,
        fallback: CpuStage,
        *,
        device: Device,
        max_batch_size: int,
        num_threads: int = 1,
        timer: StepTimer | None = None,
        watchdog: Watchdog | None = None,
        fallbacks: FallbackLog | None = None,
    ) -> None:
        self._param_sampler = param_sampler
        self._timer = timer or StepTimer("process")
        self._watchdog = watchdog or Watchdog(None)
        self._fallbacks = fallbacks or FallbackLog()
        self._num_transforms = num_transforms
        self._fallback = fallback
        self._graph = LoweredGraph(
            graph_transforms(param_sampler, num_transforms),
            source="encoded",
            device=device,
            max_batch_size=max_batch_size,
            num_threads=num_threads,
        )

    def run(
        self,
        files: Sequence[EncodedImage],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> list[Any]:
        """Return the images after all sampled transforms.

        Returns:
            For each sample uint8 HWC pixels, on the graph's device if all transforms were lowered, or a ``Failure``.
        """
        self._timer.enter("decode")
        supported = [i for i, file in enumerate(files) if file.supports_dali() and file.supports_region()]
        made = self._run_graph([files[i] for i in supported], [sampled[i] for i in supported])
        results: dict[int, Any] = dict(zip(supported, made, strict=True))
        others = [i for i in range(len(files)) if isinstance(results.get(i), _DaliFailure | None)]
        found = self._fallback.run(
            [files[i] for i in others], [sampled[i] for i in others], [output_slots[i] for i in others]
        )
        for i, image in zip(others, found, strict=True):
            results[i] = self._log_fallback(files[i], results.get(i), image)
        return [results[i] for i in range(len(files))]

    def _log_fallback(self, file: EncodedImage, failed: _DaliFailure | None, image: Any) -> Any:
        """Log why DALI failed if the CPU stage succeeded; otherwise return the failure of the CPU stage."""
        if failed is None:
            return image
        if isinstance(image, Failure):
            return replace(image, decoders=("dali", *image.decoders))
        self._fallbacks.log(file.key, f"dali: {failed.reason}", "the CPU")
        return image

    def _run_graph(self, files: Sequence[EncodedImage], sampled: Sequence[SampledParams]) -> list[Any]:
        """Run a chunk; if DALI fails, split it in halves down to the bad files, which become ``_DaliFailure``."""
        if not files:
            return []
        decodings = [self.plan(file, one) for file, one in zip(files, sampled, strict=True)]
        lowered = [self._in_graph(decoding.calls) for decoding in decodings]
        started = time.perf_counter()
        try:
            with self._watchdog.track("decode", files[0].key, len(files)):
                outputs = self._graph.run(
                    [np.frombuffer(file.data, np.uint8) for file in files],
                    lowered,
                    [
                        stored_region(decoding.region, file.size, file.orientation)
                        for file, decoding in zip(files, decodings, strict=True)
                    ],
                    [file.orientation for file in files],
                )
        except RuntimeError as error:  # DALI does not report which file failed
            if len(files) == 1:
                return [_DaliFailure(dali_error_message(error))]
            half = len(files) // 2
            parts = (slice(0, half), slice(half, None))
            return [owned_copy(one) for part in parts for one in self._run_graph(files[part], sampled[part])]
        if reason := self._watchdog.timeout_reason(
            time.perf_counter() - started
        ):  # the CPU's way finds the slow one
            return [_DaliFailure(f"{len(files)} files together {reason}")] * len(files)
        rests = [decoding.calls[len(used) :] for decoding, used in zip(decodings, lowered, strict=True)]
        images = _images(outputs, rests)
        return [
            self._apply_rest(file.key, image, rest)
            for file, image, rest in zip(files, images, rests, strict=True)
        ]

    def plan(self, file: EncodedImage, sampled: SampledParams) -> DecodePlan:
        """Decide how a file is decoded."""
        return plan_decode(
            sampled, self._param_sampler.transform_at, file.size, num_bytes=len(file.data), may_reduce=False
        )

    def _in_graph(self, calls: Sequence[TransformCall]) -> tuple[TransformCall, ...]:
        taken = tuple(call for call in calls if call.transform_index < self._num_transforms)
        assert all(one.transform_index < other.transform_index for one, other in pairwise(taken)), (
            "transforms are sampled in order"
        )
        return taken

    def _apply_rest(self, key: str, image: Any, rest: Sequence[TransformCall]) -> Any:
        if not rest:
            return image
        return apply_guarded(self._watchdog, key, lambda: self._param_sampler.apply(image, rest), ("dali",))

    def close(self) -> None:
        """Close DALI."""
        self._graph.close()
        self._fallback.close()


def graph_transforms(param_sampler: ParamSampler, num_transforms: int) -> list[GraphTransform]:
    """Pair the first transforms of a policy with their lowerings."""
    transforms = []
    for number in range(num_transforms):
        transform = param_sampler.transform_at(number)
        lowering = lowering_of(type(transform).__name__)
        assert lowering is not None, "routing lets only lowered transforms in"
        transforms.append(GraphTransform(number, transform, lowering))
    return transforms


def owned_copy(image: Any) -> Any:
    """Copy an image whose memory the next run of the graph would reuse."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return image if isinstance(image, Failure | _DaliFailure) else image.clone()


def _images(outputs: Any, rests: Sequence[Sequence[TransformCall]]) -> list[Any]:
    """Unpack DALI's tensor list; copied to the host if any image has transforms left to apply."""
    from torch.utils.dlpack import from_dlpack

    on_device = type(outputs).__name__.endswith("GPU")
    if not on_device or any(rests):
        host = outputs.as_cpu()
        return [host.at(i) for i in range(len(rests))]
    return [from_dlpack(outputs[i]) for i in range(len(rests))]
