"""What each step of a program costs on this machine, measured on a few pictures of the index."""

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
from ..executor.cpu import CpuStage, Failure
from ..index.index import Index
from ..load.decode.plan import DecodePlan
from ..load.loader import EncodedSample, SampleLoader
from ..rng import derive_seed
from ..runtime.opencv_threads import SingleThreadedOpenCV
from ..transform.params import ParamSampler, leaf_transforms

NUM_PICTURES = 16
NUM_PASSES = 3
"""The first pass warms up and is not counted."""

T = TypeVar("T")


@dataclass(frozen=True)
class Costs:
    """Seconds of one thread for some images, by step: ``read``, ``draw``, ``decode``, numbers of the policy, ``batch``."""

    seconds: dict[str | int, float]

    def share(self, step: str | int) -> float:
        """Return a step's part of the whole, 0..1."""
        return self.seconds.get(step, 0.0) / sum(self.seconds.values())


def measure_costs(program: Program, index: Index) -> Costs | None:
    """Take a few pictures through a training view, step by step, in this thread.

    Returns:
        None where the plan needs a GPU, or where no picture went through.
    """
    rows = np.flatnonzero(np.array(index.table["status"].to_pylist()) == "ok")
    if program.plan.device == "gpu" or not len(rows):
        return None
    picked = rows[np.linspace(0, len(rows) - 1, min(NUM_PICTURES, len(rows))).astype(int)]
    watch = _Stopwatch(program, index)
    try:
        with SingleThreadedOpenCV():
            for number in range(NUM_PASSES):
                watch.clear()
                for row in picked:
                    watch.run(int(row), number)
    finally:
        watch.close()
    return Costs(dict(watch.seconds)) if watch.finished else None


class _Stopwatch:
    def __init__(self, program: Program, index: Index) -> None:
        kinds = AnnotationKinds.of(index)
        self._targets = kinds.empty_targets()
        compose = program.compose(augment=True, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
        self._num_sampled = program.routes(augment=True).num_sampled
        self._param_sampler = ParamSampler(compose, self._num_sampled)
        self._behind = compose.transforms[self._num_sampled :]
        self._step_of_slot = [
            number
            for number, transform in enumerate(compose.transforms[: self._num_sampled])
            for _ in leaf_transforms([transform])
        ]
        self._loader = SampleLoader(index)
        self._pixels = CpuStage(
            self._param_sampler, max_batch_size=1, may_reduce=program.plan.decode == "auto"
        )
        self._seed = program.plan.seed
        normalization = program.normalization
        self._normalizer = None if normalization is None else Normalizer(normalization)
        self._buffers = BufferPool()
        self.seconds: dict[str | int, float] = defaultdict(float)
        self.finished = 0

    def clear(self) -> None:
        self.seconds.clear()
        self.finished = 0

    def run(self, row: int, epoch: int) -> None:
        (sample,) = self._time("read", lambda: self._loader.load(np.array([row])))
        if sample.file is None:
            return
        try:
            image = self._decode(sample, epoch)
        except Exception:  # it fails again where it is made, costs that image and is written down there
            return
        if image is None:
            return
        buffer = BatchBuffer(1, self._normalizer, self._buffers)
        self._time("batch", lambda: buffer.put(0, "", image))
        self.finished += 1

    def _decode(self, sample: EncodedSample, epoch: int) -> Any:
        assert sample.file is not None
        file = sample.file
        bits = derive_seed("augment", self._seed, epoch, sample.row["key"])
        sampled = self._time("draw", partial(self._param_sampler.sample, bits, file.size, **self._targets))
        decoding: DecodePlan = self._pixels.plan(file, sampled)
        image = self._time("decode", lambda: self._pixels.decode([file], [decoding])[0])
        if isinstance(image, Failure):
            return None
        for call in decoding.calls:
            step = self._step_of_slot[call.transform_index]
            image = self._time(step, partial(self._param_sampler.apply, image, [call]))
        data = {"image": np.ascontiguousarray(image)}
        for number, transform in enumerate(self._behind, self._num_sampled):
            transform.set_random_state(*sampled.generators)
            data = self._time(number, partial(transform, **data))
        return data["image"]

    def _time(self, step: str | int, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        self.seconds[step] += time.perf_counter() - started
        return result

    def close(self) -> None:
        self._pixels.close()
