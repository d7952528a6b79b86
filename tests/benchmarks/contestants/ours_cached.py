"""Lightwell with a cache behind a shorter side of 256: warm, filling it, and the same plan without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from benchmarks.benchmark import Work

from .ours import images, many_epochs, plan_for

SHORTER_SIDE = {"SmallestMaxSize": {"max_size": 256}}
LONG_EPOCH = 2000
"""Images that an epoch has at least where epochs are measured one by one."""


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
    work = with_long_epochs(work)
    for epoch in count():
        shutil.rmtree(folder, ignore_errors=True)
        yield from images(plan_for(work, SHORTER_SIDE, cache=folder), 1, first_epoch=epoch)


def single_epochs(work: Work) -> Iterator[torch.Tensor]:
    """Yield epochs of a feed each, as ``filling`` does, without a cache."""
    work = with_long_epochs(work)
    for epoch in count():
        yield from images(plan_for(work, SHORTER_SIDE), 1, first_epoch=epoch)


def with_long_epochs(work: Work) -> Work:
    """Link the photos under several names, so that an epoch takes seconds, as a user's does, and not a few tenths."""
    scratch = Path(work.scratch) / "long-epochs"
    folder = scratch / "photos"
    if not folder.exists():
        folder.mkdir(parents=True)
        for lap in range(-(-LONG_EPOCH // len(work.photos))):
            for number, photo in enumerate(work.photos):
                (folder / f"{lap}-{number:06d}{Path(photo).suffix}").symlink_to(Path(photo).resolve())
    photos = tuple(str(path) for path in sorted(folder.iterdir()))
    return replace(work, photos=photos, scratch=str(scratch))
