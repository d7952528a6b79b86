"""Images a second of an endless stream of batches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .contest import NUM_WORKERS, SIDE, Output

WARM_S = 1.0
"""A run is not measured until this long after its first batch: processes start, threads and queues fill."""


def images_per_second(
    batches: Iterable[Any], seconds: float, output: Output, warm_s: float = WARM_S
) -> float:
    """Take batches, looking at one value of each image, and return the pace of those after the warm stretch.

    Workers that started together finish together, a batch each. So both ends of the measured stretch lie
    behind a whole number of such volleys.
    """
    first = start = float("nan")
    num_images = num_batches = 0
    is_warm = False
    for images in batches:
        count = look_at(images, output)
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


def look_at(images: Any, output: Output) -> int:
    """Check that a batch is what was asked for, read one value of each image and count them."""
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
