"""Measure the cost of each pipeline step on a few images of the index."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..batch.annotations import AnnotationKinds
from ..batch.buffers import BatchBuffer, BufferPool, Normalizer
from ..compiler.program import Program
from ..executor.apply import Failure
from ..executor.cpu import CpuStage
from ..index.index import Index
from ..load.decode.plan import DecodePlan
from ..load.loader import EncodedSample, SampleLoader
from ..rng import derive_seed
from ..runtime.opencv_threads import SingleThreadedOpenCV
from ..transform.params import ParamSampler, leaf_transforms

NUM_IMAGES = 16
NUM_PASSES = 3
"""The first pass is a warm-up and not measured."""

T = TypeVar("T")


@dataclass(frozen=True)
class Costs:
    """Single-thread seconds by step: ``read``, ``draw``, ``decode``, index of the transform, ``batch``."""

    seconds: dict[str | int, float]

    def share(self, step: str | int) -> float:
        """Return the fraction of the total time spent in a step."""
        return self.seconds.get(step, 0.0) / sum(self.seconds.values())


def measure_costs(program: Program, index: Index) -> Costs | None:
    """Time each step of a training view on a few images, in this thread.

    Returns:
        None if the plan needs a GPU or no image could be processed.
    """
    rows = np.flatnonzero(np.array(index.table["status"].to_pylist()) == "ok")
    if program.plan.device == "gpu" or not len(rows):
        return None
    sampled_rows = rows[np.linspace(0, len(rows) - 1, min(NUM_IMAGES, len(rows))).astype(int)]
    profiler = _Profiler(program, index)
    try:
        with SingleThreadedOpenCV():
            for number in range(NUM_PASSES):
                profiler.clear()
                for row in sampled_rows:
                    profiler.run(int(row), number)
    finally:
        profiler.close()
    return Costs(dict(profiler.seconds)) if profiler.num_images else None


class _Profiler:
    def __init__(self, program: Program, index: Index) -> None:
        kinds = AnnotationKinds.of(index)
        self._targets = kinds.empty_targets()
        compose = program.compose(augment=True, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
        self._num_sampled = program.routes(augment=True).num_sampled
        self._param_sampler = ParamSampler(compose, self._num_sampled)
        self._unsampled = compose.transforms[self._num_sampled :]
        self._step_of_transform = [
            number
            for number, transform in enumerate(compose.transforms[: self._num_sampled])
            for _ in leaf_transforms([transform])
        ]
        self._loader = SampleLoader(index)
        self._stage = CpuStage(
            self._param_sampler, max_batch_size=1, may_reduce=program.plan.decode == "auto"
        )
        self._seed = program.plan.seed
        normalization = program.normalization
        self._normalizer = None if normalization is None else Normalizer(normalization)
        self._buffers = BufferPool()
        self.seconds: dict[str | int, float] = defaultdict(float)
        self.num_images = 0

    def clear(self) -> None:
        self.seconds.clear()
        self.num_images = 0

    def run(self, row: int, epoch: int) -> None:
        (sample,) = self._time("read", lambda: self._loader.load(np.array([row])))
        if sample.file is None:
            return
        try:
            image = self._decode(sample, epoch)
        except Exception:  # reported when the feed processes the image
            return
        if image is None:
            return
        buffer = BatchBuffer(1, self._normalizer, self._buffers)
        self._time("batch", lambda: buffer.put(0, "", image))
        self.num_images += 1

    def _decode(self, sample: EncodedSample, epoch: int) -> Any:
        assert sample.file is not None
        file = sample.file
        seed = derive_seed("augment", self._seed, epoch, sample.row["key"])
        sampled = self._time("draw", partial(self._param_sampler.sample, seed, file.size, **self._targets))
        decoding: DecodePlan = self._stage.plan(file, sampled)
        image = self._time("decode", lambda: self._stage.decode([file], [decoding])[0])
        if isinstance(image, Failure):
            return None
        for call in decoding.calls:
            step = self._step_of_transform[call.transform_index]
            image = self._time(step, partial(self._param_sampler.apply, image, [call]))
        data = {"image": np.ascontiguousarray(image)}
        for number, transform in enumerate(self._unsampled, self._num_sampled):
            transform.set_random_state(*sampled.generators)
            data = self._time(number, partial(transform, **data))
        return data["image"]

    def _time(self, step: str | int, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        self.seconds[step] += time.perf_counter() - started
        return result

    def close(self) -> None:
        self._stage.close()
