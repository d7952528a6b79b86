"""Loaders that work in two threads of this process: SPDL and torchdata.nodes, each with OpenCV (linear).

Both are fastest when a thread is handed the paths of a whole batch; an image at a time costs them a quarter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import cv2
from torch.utils.data import Sampler

from benchmarks.benchmark import NUM_WORKERS, Work
from benchmarks.crops import endless_batches, endless_order, load_batch

READ_AHEAD = 2


def spdl(work: Work) -> Iterator[Any]:
    """Build SPDL's pipeline; its own decoder is slower and needs FFmpeg."""
    from spdl.pipeline import PipelineBuilder

    cv2.setNumThreads(1)
    chance = random.Random()
    paths = (
        [work.photos[number] for number in numbers]
        for numbers in endless_batches(len(work.photos), work.batch_size)
    )
    pipeline = (
        PipelineBuilder()
        .add_source(paths)
        .pipe(lambda batch: load_batch(batch, work.output, chance), concurrency=NUM_WORKERS)
        .add_sink(READ_AHEAD)
        .build(num_threads=NUM_WORKERS, max_failures=0, use_thread_output_queue=True)
    )
    with pipeline.auto_stop():
        yield from pipeline


class Order(Sampler[int]):
    """Shuffled epochs without an end."""

    def __init__(self, num_photos: int) -> None:
        self.num_photos = num_photos

    def __iter__(self) -> Iterator[int]:
        return endless_order(self.num_photos)


def torchdata_nodes(work: Work) -> Iterator[Any]:
    """Chain torchdata's nodes, batching before mapping."""
    from torchdata.nodes import Batcher, Loader, ParallelMapper, Prefetcher, SamplerWrapper

    cv2.setNumThreads(1)
    chance = random.Random()
    node = Batcher(SamplerWrapper(Order(len(work.photos))), work.batch_size)
    node = ParallelMapper(
        node,
        lambda numbers: load_batch([work.photos[number] for number in numbers], work.output, chance),
        num_workers=NUM_WORKERS,
        method="thread",
        in_order=False,
    )
    yield from Loader(Prefetcher(node, READ_AHEAD))
