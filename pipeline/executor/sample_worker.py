"""Sample worker: samples parameters, decodes, transforms and replaces bad samples, all in one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..batch.annotations import (
    NO_ANNOTATIONS,
    AnnotationError,
    AnnotationKinds,
    Annotations,
    albumentations_targets,
    collect_annotations,
    read_annotations,
)
from ..compiler.program import Program
from ..compiler.routing import Backend
from ..errors import RunError, SampleError
from ..load.decode.dali import owned_copy
from ..load.decode.fallback import FallbackLog
from ..load.loader import EncodedSample, Row, SampleLoader
from ..memory.budget import MemoryBudget
from ..memory.estimates import RGB, estimate_sample_bytes, max_sample_bytes, split_by_bytes
from ..monitor.quarantine import QuarantineEntry
from ..monitor.step_timer import FeedMonitor
from ..monitor.watchdog import Watchdog
from ..plan.view import View
from ..rng import derive_seed
from ..sampler.schedule import replacements
from ..transform.params import ParamSampler, SampledParams, Trace, leaf_transforms
from ..transform.size_bound import SizeBound, largest_pixels
from ..uris import public_uri
from .apply import Failure, OutputSlot, apply_guarded, no_output_slot, policy_failure
from .cached import CACHE_STEP, CacheReader, CacheStage
from .cpu import CpuStage
from .dali import DaliStage


@dataclass(frozen=True, slots=True)
class Sample:
    """A transformed HWC image with label and annotations. Pixels are valid until the next call of ``process``."""

    key: str
    label: int
    image: Any
    """NumPy array, or a torch tensor on the GPU if the whole policy ran there."""
    annotations: Annotations = NO_ANNOTATIONS
    replaced: bool = False
    labels: Sequence[int] | None = None
    """Classes of an image that may have several; None if it is unlabelled, or the index has one class per image."""


@dataclass(frozen=True)
class WorkerContext:
    """State shared by all threads of a feed."""

    program: Program
    view: View
    loader: SampleLoader
    rows: np.ndarray
    monitor: FeedMonitor
    budget: MemoryBudget
    watchdog: Watchdog
    kinds: AnnotationKinds
    """Kinds of annotations in the index."""
    backend: Backend = "opencv"
    cached: CacheReader | None = None
    """Tried before the loader if the plan has a cache."""
    dali_threads: int = 1
    """Threads of each DALI graph; with OpenCV the sample workers themselves run in parallel."""
    fallbacks: FallbackLog = field(default_factory=FallbackLog)
    """Logs fallbacks to another decoder, once per reason."""
    slow: set[str] = field(default_factory=set)
    """Keys of samples that timed out; later epochs skip them."""
    trace: Trace | None = None
    """Records what is done to each sample, where one thread makes one at a time."""

    def load(self, rows: np.ndarray) -> list[EncodedSample]:
        """Look samples up in the cache and read the files of the others."""
        return self.loader.load(rows) if self.cached is None else self.cached.load(rows, self.loader)


class SampleWorker:
    """Processes samples in chunks. One per thread; call ``close`` when done."""

    def __init__(self, shared: WorkerContext, *, max_samples: int) -> None:
        self._shared = shared
        self._builders = _EpochBuilder(shared, max_samples)
        self._spares = _EpochBuilder(shared, 1)
        """For replacements."""

    def process(
        self,
        samples: Sequence[EncodedSample],
        epoch: int,
        output_slots: Sequence[OutputSlot],
        quarantined: list[QuarantineEntry],
    ) -> list[Sample | None]:
        """Process samples in order; failed ones are added to ``quarantined`` and replaced or None, by the plan's error policy.

        Images are written to their output slots where possible; others have to be copied there.

        Raises:
            SampleError: a sample failed and the plan says ``on_error: raise``.
            RunError: a sample and all of its replacements failed.
        """
        results = self._builders.at(epoch).process(samples, epoch, output_slots)
        return [
            one if isinstance(one, Sample) else self._recover(sample, one, epoch, quarantined)
            for sample, one in zip(samples, results, strict=True)
        ]

    def split_by_bytes(
        self, samples: Sequence[EncodedSample], epoch: int, max_bytes: int
    ) -> Iterator[tuple[Sequence[EncodedSample], int]]:
        """Split samples into runs whose pixels take at most ``max_bytes``; a larger sample is a run of its own.

        Parameters of large images are sampled here and again in ``process``, which is cheap compared to decoding.
        """
        copies = 2 if self._shared.cached is None else 3
        builder = self._builders.at(epoch)
        sizes = [
            max_sample_bytes(sample.file, sample.cached_image, copies, builder.size_bound)
            for sample in samples
        ]
        if builder.size_bound.needs_sampling or sum(sizes) > max_bytes:
            sizes = [builder.estimate_sample_bytes(sample, epoch) for sample in samples]
        return split_by_bytes(samples, sizes.__getitem__, max_bytes)

    def close(self) -> None:
        """Close DALI."""
        self._builders.close()
        self._spares.close()

    def _recover(
        self, sample: EncodedSample, failure: Failure, epoch: int, quarantined: list[QuarantineEntry]
    ) -> Sample | None:
        """Process a sample from its file if its cached image was damaged; otherwise skip or replace it."""
        if failure.step == CACHE_STEP:
            sample = self._shared.loader.reload(sample)
            again = self._process_single(sample, epoch)
            if isinstance(again, Sample):
                return again
            failure = again
        return self._skip_or_replace(sample, failure, epoch, quarantined)

    def _process_single(self, sample: EncodedSample, epoch: int) -> Sample | Failure:
        """Process a sample into memory of its own, without overwriting the results of the chunk."""
        (found,) = self._spares.at(epoch).process([sample], epoch, [no_output_slot])
        return replace(found, image=owned_copy(found.image)) if isinstance(found, Sample) else found

    def _skip_or_replace(
        self, sample: EncodedSample, failure: Failure, epoch: int, quarantined: list[QuarantineEntry]
    ) -> Sample | None:
        shared = self._shared
        key = str(sample.row["key"])
        rule = shared.program.plan.errors.on_error
        if rule != "replace":
            quarantined.append(self._entry(sample, failure, None, epoch))
            if rule == "raise":
                raise SampleError(key, failure.step, failure.reason)
            return None
        shared.monitor.timer("process").enter("input")
        for row in replacements(shared.rows, seed=shared.program.plan.seed, epoch=epoch, key=key):
            (other,) = shared.load(np.array([row]))
            replacement = self._process_single(other, epoch)
            if isinstance(replacement, Sample):
                quarantined.append(self._entry(sample, failure, replacement.key, epoch))
                return replace(replacement, replaced=True)
        quarantined.append(self._entry(sample, failure, None, epoch))
        raise RunError(
            f"{failure.step} of {key!r}: {failure.reason}; none of its replacements could be used either; "
            "check the quarantine list and index the folder again"
        )

    def _entry(
        self, sample: EncodedSample, failure: Failure, replaced_by: str | None, epoch: int
    ) -> QuarantineEntry:
        row = sample.row
        if failure.step == "time":
            self._shared.slow.add(row["key"])
        decoders = ", ".join(failure.decoders)
        return QuarantineEntry(
            row["key"], public_uri(row["uri"]), failure.step, failure.reason, decoders, replaced_by, epoch
        )


class _EpochBuilder:
    """The builder of an epoch's samples, replaced where the size of training images changes."""

    def __init__(self, shared: WorkerContext, max_samples: int) -> None:
        self._shared = shared
        self._max_samples = max_samples
        self._program: Program | None = None
        self._builder: _SampleBuilder | None = None

    def at(self, epoch: int) -> _SampleBuilder:
        """Return the builder of an epoch; closes that of another size."""
        program = self._shared.program
        program = program.at_epoch(epoch) if self._shared.view.augment else program
        if self._builder is None or self._program is not program:
            self.close()
            self._builder = _SampleBuilder(self._shared, program, self._max_samples)
            self._program = program
        return self._builder

    def close(self) -> None:
        """Close DALI."""
        if self._builder is not None:
            self._builder.image_stage.close()


class _SampleBuilder:
    """Samples parameters, decodes and transforms."""

    def __init__(self, shared: WorkerContext, program: Program, max_samples: int) -> None:
        view = shared.view
        self._timer = shared.monitor.timer("process")
        self._slow = shared.slow
        self._watchdog = shared.watchdog
        self._plan = program.plan
        self._seed = program.plan.seed
        self._kinds = kinds = shared.kinds
        routes = program.routes(augment=view.augment, backend=shared.backend)
        compose = program.compose(augment=view.augment, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
        self._param_sampler = ParamSampler(compose, routes.num_sampled, shared.trace)
        self.size_bound = SizeBound.of(compose.transforms)
        self._on_cpu = on_cpu = CpuStage(
            self._param_sampler,
            max_batch_size=max_samples,
            may_reduce=program.plan.decode == "auto" and shared.backend == "opencv",
            timer=self._timer,
            watchdog=shared.watchdog,
            fallbacks=shared.fallbacks,
        )
        self.image_stage: CpuStage | DaliStage = on_cpu
        self._cached: CacheStage | None = None
        self._num_cached = 0
        """Leading outermost transforms that cached images skip entirely, parameter sampling included."""
        if shared.cached is not None:
            num_before = sum(1 for _ in leaf_transforms(compose.transforms[: program.num_cached]))
            self._cached = CacheStage(
                self._param_sampler, on_cpu, shared.cached.cache, num_before, shared.watchdog
            )
            self._num_cached = (
                program.num_cached if self._param_sampler.is_deterministic(program.num_cached) else 0
            )
        num_transforms = sum(1 for _ in leaf_transforms(compose.transforms[: routes.num_lowered]))
        if shared.backend == "dali":
            self.image_stage = DaliStage(
                self._param_sampler,
                num_transforms,
                on_cpu,
                device=program.plan.device,
                max_batch_size=max_samples,
                num_threads=shared.dali_threads,
                timer=self._timer,
                watchdog=shared.watchdog,
                fallbacks=shared.fallbacks,
            )

    def process(
        self, samples: Sequence[EncodedSample], epoch: int, output_slots: Sequence[OutputSlot]
    ) -> list[Sample | Failure]:
        """Sample parameters for all, decode in batches where possible, then finish one by one."""
        self._timer.enter("sample")
        first = str(samples[0].row["key"]) if samples else ""
        with self._watchdog.track(
            "policy", first, len(samples)
        ):  # sampling is so fast that all are tracked together
            sampled = [self._sample_params(sample, epoch) for sample in samples]
        ready = [
            (sample, one[0], output_slot)
            for sample, one, output_slot in zip(samples, sampled, output_slots, strict=True)
            if not isinstance(one, Failure)
        ]
        images = iter(self._images(ready))
        self._timer.enter("transform")
        return [
            one if isinstance(one, Failure) else self._finish(sample.row, *one, next(images))
            for sample, one in zip(samples, sampled, strict=True)
        ]

    def estimate_sample_bytes(self, sample: EncodedSample, epoch: int) -> int:
        """Estimate the bytes of a sample's pixels from its sampled parameters."""
        sampled = self._sample_params(sample, epoch)
        if isinstance(sampled, Failure):
            return max_sample_bytes(sample.file, sample.cached_image)
        if sample.file is None:
            return max_sample_bytes(None, sample.cached_image) + RGB * largest_pixels(sampled[0])
        if self._cached is not None:
            return self._cached.estimate_sample_bytes(sample.file, sampled[0])
        return estimate_sample_bytes(sample.file, self._on_cpu.plan(sample.file, sampled[0]), sampled[0])

    def _images(self, ready: Sequence[tuple[EncodedSample, SampledParams, OutputSlot]]) -> Sequence[Any]:
        if not ready:
            return ()
        samples, sampled, output_slots = zip(*ready, strict=True)
        if self._cached is not None:
            self._timer.enter("transform")
            return self._cached.run(samples, sampled, output_slots)
        return self.image_stage.run([sample.file for sample in samples], sampled, output_slots)

    def _sample_params(
        self, sample: EncodedSample, epoch: int
    ) -> tuple[SampledParams, Annotations] | Failure:
        """Sample the parameters of one sample; also return its annotations."""
        if sample.size is None:
            return Failure(sample.step, sample.reason)
        row = sample.row
        if row["key"] in self._slow:
            return Failure("time", "took too long before, not retried")
        size = sample.size
        try:
            annotations = read_annotations(row, sample.mask, size, self._kinds)
            targets = albumentations_targets(
                annotations, size, self._kinds, self._plan.bbox_params, self._plan.keypoint_params
            )
            seed = derive_seed("augment", self._seed, epoch, row["key"])
            num_skipped = 0
            if sample.cached_image is not None and self._num_cached and not targets:
                size, num_skipped = sample.cached_image.size, self._num_cached
            return self._param_sampler.sample(seed, size, num_skipped=num_skipped, **targets), annotations
        except AnnotationError as error:
            return Failure(error.step, error.reason)
        except Exception as error:  # transforms may raise anything; only this sample is quarantined
            return policy_failure(error)

    def _finish(
        self, row: Row, sampled: SampledParams, annotations: Annotations, image: Any
    ) -> Sample | Failure:
        if isinstance(image, Failure):
            return image
        if self._param_sampler.is_finished(sampled):
            return Sample(row["key"], int(row["label"]), image, labels=row["labels"])

        def finish() -> Sample:
            done = self._param_sampler.finish(image, sampled)
            found = collect_annotations(annotations, done)
            return Sample(row["key"], int(row["label"]), done["image"], found, labels=row["labels"])

        return apply_guarded(self._watchdog, row["key"], finish)
