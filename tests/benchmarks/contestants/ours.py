"""Lightwell: a plan, a view and the local engine, as a user writes them. Resizes with OpenCV, linear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightwell import LocalEngine, Plan, View, build_index

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, MEAN, RATIO, SCALE, STD

ENOUGH = 60_000
"""More images a second than can be had: a view has a number of epochs, and the stream must not end."""


def feed(work: Work) -> Iterator[torch.Tensor]:
    """Yield the images of a shuffled, augmented view with two threads; Normalize makes it the float row."""
    yield from images(plan_for(work), many_epochs(work))


def plan_for(work: Work, *first: dict[str, Any], cache: Path | None = None) -> Plan:
    """Write the plan, with what stands first; indexes the photos once."""
    index = Path(work.scratch) / "index.parquet"
    if not index.exists():
        build_index(Path(work.photos[0]).parent).save(index)
    normalize = {"Normalize": {"mean": list(MEAN), "std": list(STD)}}
    return Plan(
        index=index,
        preprocess=[*first, normalize] if work.output == "float32" else [*first],
        augment=[
            {"RandomResizedCrop": {"size": [SIDE, SIDE], "scale": list(SCALE), "ratio": list(RATIO)}},
            {"HorizontalFlip": {"p": FLIP_P}},
        ],
        batch={"size": work.batch_size},
        cache=cache,
    )


def many_epochs(work: Work) -> int:
    """Count epochs that outlast the benchmark."""
    return math.ceil((work.seconds + 30) * ENOUGH / len(work.photos))


def images(plan: Plan, num_epochs: int, first_epoch: int = 0) -> Iterator[torch.Tensor]:
    """Yield the images of a training view."""
    view = View(shuffle=True, augment=True, first_epoch=first_epoch, num_epochs=num_epochs)
    with LocalEngine(num_threads=NUM_WORKERS).feed(plan, view) as batches:
        for batch in batches:
            yield batch.images
