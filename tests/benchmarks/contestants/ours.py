"""Lightwell: a plan, a view and the local engine, as a user writes them. Resizes with OpenCV, linear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from lightwell import LocalEngine, Plan, View, build_index

from benchmarks.contest import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, MEAN, RATIO, SCALE, STD

ENOUGH = 20_000
"""More images a second than can be had: a view has a number of epochs, and the stream must not end."""


def feed(work: Work) -> Iterator[torch.Tensor]:
    """Yield the images of a shuffled, augmented view with two threads; Normalize makes it the float row."""
    index = Path(work.scratch) / "index.parquet"
    if not index.exists():
        build_index(Path(work.photos[0]).parent).save(index)
    normalize = {"Normalize": {"mean": list(MEAN), "std": list(STD)}}
    plan = Plan(
        index=index,
        preprocess=[normalize] if work.output == "float32" else [],
        augment=[
            {"RandomResizedCrop": {"size": [SIDE, SIDE], "scale": list(SCALE), "ratio": list(RATIO)}},
            {"HorizontalFlip": {"p": FLIP_P}},
        ],
        batch={"size": work.batch_size},
    )
    num_epochs = math.ceil((work.seconds + 30) * ENOUGH / len(work.photos))
    view = View(shuffle=True, augment=True, num_epochs=num_epochs)
    with LocalEngine(num_threads=NUM_WORKERS).feed(plan, view) as batches:
        for batch in batches:
            yield batch.images
