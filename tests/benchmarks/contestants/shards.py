"""WebDataset: the files' own bytes in ten tar shards, decoded with OpenCV (linear) in two worker processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import cut_bytes, normalise

NUM_SHARDS = 10
NUM_PASSES = 10_000


def write_shards(work: Work) -> list[str]:
    """Write the shards once; the first run, which is not measured, does it."""
    import webdataset

    folder = Path(work.scratch) / "shards"
    if not folder.exists():
        aside = folder.with_suffix(".part")
        aside.mkdir(parents=True)
        for number in range(NUM_SHARDS):
            with webdataset.TarWriter(str(aside / f"{number:06}.tar")) as shard:
                for path in work.photos[number::NUM_SHARDS]:
                    shard.write({"__key__": Path(path).stem, "jpg": Path(path).read_bytes()})
        aside.rename(folder)
    return [str(path) for path in sorted(folder.iterdir()) if path.stat().st_size > 10_240]


def webdataset_cv2(work: Work) -> Iterator[Any]:
    """Yield batches made in the workers; shards are shuffled, then samples in a buffer of 500."""
    import webdataset

    chance = random.Random()

    def decode(encoded: bytes) -> np.ndarray:
        cv2.setNumThreads(1)
        out_hwc = np.empty((SIDE, SIDE, 3), np.uint8)
        cut_bytes(np.frombuffer(encoded, np.uint8), out_hwc, chance)
        return out_hwc

    def collate(samples: list[tuple[np.ndarray]]) -> Any:
        import torch

        images = np.stack([image for (image,) in samples])
        return torch.from_numpy(images) if work.output == "uint8" else normalise(images)

    shards = write_shards(work)
    dataset = (
        webdataset.WebDataset(shards * NUM_PASSES, shardshuffle=len(shards), empty_check=False)
        .shuffle(500)
        .to_tuple("jpg")
        .map_tuple(decode)
        .batched(work.batch_size, collation_fn=collate)
    )
    yield from webdataset.WebLoader(dataset, batch_size=None, num_workers=NUM_WORKERS)
