"""Ray Data on two CPUs: ``read_images``, then the crop in ``map_batches`` with OpenCV, linear."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import cut, normalise

ENOUGH = 1_500
"""More images a second than Ray Data was ever seen to read on two cores: so many paths it is given. All epochs are
one execution, because starting one takes seconds."""


def read_images(work: Work) -> Iterator[Any]:
    """Yield batches from one execution over the paths, repeated."""
    import ray

    ray.init(num_cpus=NUM_WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    num_epochs = math.ceil((work.seconds + 15) * ENOUGH / len(work.photos))
    paths = list(work.photos) * num_epochs
    output = work.output

    def finish(batch: dict[str, Any]) -> dict[str, Any]:
        cv2.setNumThreads(1)
        chance = random.Random()
        images = np.empty((len(batch["image"]), SIDE, SIDE, 3), np.uint8)
        for image, out_hwc in zip(batch["image"], images, strict=True):
            cut(image, out_hwc, chance)
        return {"image": images if output == "uint8" else normalise(images).contiguous().numpy()}

    images = ray.data.read_images(paths, mode="RGB", shuffle="files")
    finished = images.map_batches(finish, batch_size=work.batch_size)
    try:
        for batch in finished.iter_batches(batch_size=work.batch_size, prefetch_batches=2):
            yield batch["image"]
    finally:
        ray.shutdown()
