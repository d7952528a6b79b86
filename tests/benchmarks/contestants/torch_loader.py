"""torch's DataLoader with two worker processes: Pillow, torchvision.io, and OpenCV with Albumentations.

torchvision resizes bilinear with antialiasing, which it cannot leave off for Pillow; Albumentations resizes linear
without, by OpenCV, as Lightwell does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, MEAN, RATIO, SCALE, STD, endless_batches

Load = Callable[[str], torch.Tensor]


class Photos(Dataset[torch.Tensor]):
    """Files, loaded by a function."""

    def __init__(self, paths: tuple[str, ...], load: Load) -> None:
        self.paths = paths
        self.load = load

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.load(self.paths[number])


class Batches(Sampler[list[int]]):
    """Shuffled epochs without an end: workers are started once and never run dry."""

    def __init__(self, num_photos: int, batch_size: int) -> None:
        self.num_photos = num_photos
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return endless_batches(self.num_photos, self.batch_size)


def loader(work: Work, load: Load) -> Iterator[torch.Tensor]:
    """Yield batches that the workers put together in shared memory."""
    yield from DataLoader(
        Photos(work.photos, load),
        batch_sampler=Batches(len(work.photos), work.batch_size),
        num_workers=NUM_WORKERS,
        worker_init_fn=use_one_thread,
    )


def use_one_thread(_: int) -> None:
    """Keep OpenCV's own threads out of the workers."""
    cv2.setNumThreads(1)


def torchvision_steps(work: Work, *first: Any) -> Any:
    """Compose torchvision's v2 transforms for a row."""
    from torchvision.transforms import v2

    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=SCALE, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(FLIP_P),
            *first,
            *(last if work.output == "float32" else []),
        ]
    )


def torchvision_io(work: Work) -> Iterator[torch.Tensor]:
    """Decode with torchvision.io, transform tensors."""
    from torchvision.io import ImageReadMode, decode_image

    steps = torchvision_steps(work)
    return loader(work, lambda path: steps(decode_image(path, mode=ImageReadMode.RGB)))


def torchvision_pil(work: Work) -> Iterator[torch.Tensor]:
    """Decode with Pillow, transform Pillow's images, as most tutorials do."""
    from PIL import Image
    from torchvision.transforms import v2

    steps = torchvision_steps(work, v2.PILToTensor())
    return loader(work, lambda path: steps(Image.open(path).convert("RGB")))


def albumentations(work: Work) -> Iterator[torch.Tensor]:
    """Decode with OpenCV, transform with Albumentations."""
    import albumentations as A

    steps = [A.RandomResizedCrop((SIDE, SIDE), scale=SCALE, ratio=RATIO), A.HorizontalFlip(p=FLIP_P)]
    last = [A.Normalize(MEAN, STD), A.ToTensorV2()] if work.output == "float32" else []
    compose = A.Compose([*steps, *last])

    def load(path: str) -> torch.Tensor:
        image = compose(image=cv2.imread(path, cv2.IMREAD_COLOR_RGB))["image"]
        return torch.as_tensor(image)

    return loader(work, load)
