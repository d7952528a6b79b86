"""Measure the throughput of an endless stream of batches, in images per second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .benchmark import NUM_WORKERS, SIDE, Output

WARM_S = 1.0
"""Warm-up after the first batch, while processes start and queues fill."""


def images_per_second(
    batches: Iterable[Any], seconds: float, output: Output, warm_s: float = WARM_S
) -> float:
    """Read batches, checking one value of each image, and return the throughput after the warm-up.

    Workers that start together finish together, with a batch each. Both ends of the measured interval therefore lie
    after a multiple of ``NUM_WORKERS`` batches.
    """
    first = start = float("nan")
    num_images = num_batches = 0
    is_warm = False
    for images in batches:
        count = check_batch(images, output)
        now = time.perf_counter()
        if num_batches == 0:
            first = now
        num_batches += 1
        num_images += count if is_warm else 0
        if num_batches % NUM_WORKERS:
            continue
        if not is_warm and now - first >= warm_s:
            start, is_warm = now, True
        elif is_warm and now - start >= seconds:
            return num_images / (now - start)
    raise AssertionError(f"a contestant's stream ended after {num_batches} batches; it has to be endless")


def check_batch(images: Any, output: Output) -> int:
    """Check dtype and shape of a batch, read one value of each image and return the number of images."""
    shape, kind = tuple(images.shape), str(images.dtype).rpartition(".")[2]
    channels_last, channels_first = (SIDE, SIDE, 3), (3, SIDE, SIDE)
    allowed = {
        "uint8": (channels_last, channels_first),
        "float32": (channels_first,),
        "decoded": ((1, 1, 3),),
    }
    assert kind == ("float32" if output == "float32" else "uint8"), kind
    assert shape[1:] in allowed[output], shape
    assert float(images[:, 0, 0, 0].sum()) < float("inf")
    return int(shape[0])
