"""DALI stage: decodes files and applies all lowered transforms in one DALI graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..load.decode.dali import DaliDecoder, DaliFailure, DaliInput
from ..load.decode.decoder import EncodedImage
from ..load.decode.fallback import FallbackLog
from ..load.decode.orientation import stored_region
from ..monitor.step_timer import StepTimer
from ..monitor.watchdog import Watchdog
from ..transform.dali.graph import GraphTransform
from ..transform.dali.lowering import Device
from ..transform.dali.op_registry import lowering_of
from ..transform.params import ParamSampler, SampledParams, TransformCall
from .apply import Failure, OutputSlot, TransformApplier
from .cpu import CpuStage


class DaliStage:
    """Decodes and transforms chunks in DALI, and applies the transforms after the lowered ones with OpenCV.

    Files that DALI cannot decode or fails on are processed by the CPU stage, so that one bad file affects no other.
    One thread at a time; call ``close`` when done.

    Args:
        param_sampler: provides the transforms by index.
        num_transforms: number of leading transforms that run in the graph.
        fallback: processes the files that the graph cannot, and decodes nothing at reduced scale.
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
        self._timer = timer or StepTimer("process")
        self._fallbacks = fallbacks or FallbackLog()
        self._num_transforms = num_transforms
        self._fallback = fallback
        self._applier = TransformApplier(param_sampler, watchdog)
        self._decoder = DaliDecoder(
            graph_transforms(param_sampler, num_transforms),
            device=device,
            max_batch_size=max_batch_size,
            num_threads=num_threads,
            watchdog=watchdog,
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
        made = self._run_graph(
            [files[i] for i in supported],
            [sampled[i] for i in supported],
            [output_slots[i] for i in supported],
        )
        results: dict[int, Any] = dict(zip(supported, made, strict=True))
        others = [i for i in range(len(files)) if isinstance(results.get(i), DaliFailure | None)]
        found = self._fallback.run(
            [files[i] for i in others], [sampled[i] for i in others], [output_slots[i] for i in others]
        )
        for i, image in zip(others, found, strict=True):
            results[i] = self._log_fallback(files[i], results.get(i), image)
        return [results[i] for i in range(len(files))]

    def _log_fallback(self, file: EncodedImage, failed: DaliFailure | None, image: Any) -> Any:
        """Log why DALI failed if the CPU stage succeeded; otherwise return the failure of the CPU stage."""
        if failed is None:
            return image
        if isinstance(image, Failure):
            return replace(image, decoders=("dali", *image.decoders))
        self._fallbacks.log(file.key, f"dali: {failed.reason}", "the CPU")
        return image

    def _run_graph(
        self,
        files: Sequence[EncodedImage],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> list[Any]:
        """Return the images of a chunk, on the graph's device if no transforms remain for any; or ``DaliFailure``s."""
        decodings = [self._fallback.plan(file, one) for file, one in zip(files, sampled, strict=True)]
        lowered = [self._in_graph(decoding.calls) for decoding in decodings]
        rests = [decoding.calls[len(used) :] for decoding, used in zip(decodings, lowered, strict=True)]
        inputs = [
            DaliInput(
                file.key,
                file.data,
                stored_region(decoding.region, file.size, file.orientation),
                file.orientation,
                calls,
            )
            for file, decoding, calls in zip(files, decodings, lowered, strict=True)
        ]
        return self._applier.apply_all(
            [file.key for file in files],
            self._decoder.decode(inputs, on_host=any(rests)),
            rests,
            [output_slot(one.size) for one, output_slot in zip(sampled, output_slots, strict=True)],
            ("dali",),
        )

    def _in_graph(self, calls: Sequence[TransformCall]) -> tuple[TransformCall, ...]:
        taken = tuple(call for call in calls if call.transform_index < self._num_transforms)
        assert all(one.transform_index < other.transform_index for one, other in pairwise(taken)), (
            "transforms are sampled in order"
        )
        return taken

    def close(self) -> None:
        """Close DALI."""
        self._decoder.close()
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
