"""Lightwell with a cache behind a shorter side of 256: warm, filling it, and the same plan without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from benchmarks.contest import Work

from .ours import images, many_epochs, plan_for

SHORTER_SIDE = {"SmallestMaxSize": {"max_size": 256}}


def warm(work: Work) -> Iterator[torch.Tensor]:
    """Yield images out of the cache; the warm pass, which is not measured, fills it."""
    plan = plan_for(work, SHORTER_SIDE, cache=Path(work.scratch) / "pixels")
    for _ in images(plan, 1):
        pass
    yield from images(plan, many_epochs(work), first_epoch=1)


def cold(work: Work) -> Iterator[torch.Tensor]:
    """Yield images of the same plan without a cache."""
    yield from images(plan_for(work, SHORTER_SIDE), many_epochs(work))


def filling(work: Work) -> Iterator[torch.Tensor]:
    """Yield epochs that fill a new cache each; deleting the one before is part of it."""
    folder = Path(work.scratch) / "pixels-filling"
    for epoch in count():
        shutil.rmtree(folder, ignore_errors=True)
        yield from images(plan_for(work, SHORTER_SIDE, cache=folder), 1, first_epoch=epoch)


def single_epochs(work: Work) -> Iterator[torch.Tensor]:
    """Yield epochs of a feed each, as ``filling`` does, without a cache."""
    for epoch in count():
        yield from images(plan_for(work, SHORTER_SIDE), 1, first_epoch=epoch)
