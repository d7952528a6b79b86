"""FFCV: raw pixels in its own file, longest side 256, which it shrinks by area; two threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, MEAN, RATIO, SCALE, STD

LONGEST_SIDE = 256


class Photos:
    """Pictures in RGB with a label, as FFCV's writer asks for them; gray ones have to be converted."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return Image.open(self.paths[number]).convert("RGB"), 0


def write_beton(work: Work) -> Path:
    """Write its file once; the first run, which is not measured, does it."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    path = Path(work.scratch) / "photos.beton"
    if not path.exists():
        aside = path.with_suffix(".part")
        fields = {"image": RGBImageField(write_mode="raw", max_resolution=LONGEST_SIDE), "label": IntField()}
        DatasetWriter(str(aside), fields, num_workers=NUM_WORKERS).from_indexed_dataset(Photos(work.photos))
        aside.rename(path)
    return path


def beton(work: Work) -> Iterator[Any]:
    """Yield batches, with the pixels in the page cache."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

    steps: list[Any] = [
        RandomResizedCropRGBImageDecoder((SIDE, SIDE), scale=SCALE, ratio=RATIO),
        RandomHorizontalFlip(FLIP_P),
    ]
    if work.output == "float32":
        steps.append(NormalizeImage(np.array(MEAN) * 255, np.array(STD) * 255, np.float32))
    steps.append(ToTensor())
    if work.output == "float32":
        steps.append(ToTorchImage(convert_back_int16=False))
    loader = Loader(
        str(write_beton(work)),
        batch_size=work.batch_size,
        num_workers=NUM_WORKERS,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={"image": steps, "label": None},
    )
    while True:
        for (images,) in loader:
            yield images
