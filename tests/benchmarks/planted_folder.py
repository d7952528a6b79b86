"""Folders of real photos with copies and traces planted in them, and twins of them without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

COPIES = ("exact", "recompressed", "resized", "cropped by 5 %", "cropped by 10 %", "mirrored")
COPIES_EACH = 4
"""Copies of each kind within the training split, and as many of test images."""
IMAGES_PER_CLASS = 48
TEST_SHARE = 0.25
QUALITY, OTHER_QUALITY, LOW_QUALITY = 90, 80, 50
"""JPEG quality of all images, of those with the planted trace, and of recompressed copies."""
PREVALENCES = (1.0, 0.5, 0.2, 0.1)
"""Share of the class that has the trace; one for each seed, in turn."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A planted copy, by the keys of the images."""

    kind: str
    key: str
    source: str
    leaks: bool
    """Its source is a test image."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A planted property: images of one class that are saved at another quality."""

    class_name: str
    prevalence: float


@dataclass(frozen=True, slots=True)
class Planted:
    """What has been planted in a folder; nothing in a clean twin."""

    copies: tuple[Copy, ...] = ()
    trace: Trace | None = None


def plant_folder(photos: Mapping[str, Sequence[Path]], folder: Path, seed: int, *, is_clean: bool) -> Planted:
    """Write a folder ``SPLIT/CLASS/NUMBER.jpg`` of photos drawn from those of each class.

    Args:
        photos: files of each class.
        folder: to be created.
        seed: of the draw; the planted folder and its twin have the same photos.
        is_clean: plant nothing, and draw the classes of the images, so that no property can predict them.
    """
    generator = np.random.default_rng(seed)
    names = sorted(photos)
    drawn = [
        (name, path)
        for name in names
        for path in generator.permutation(np.asarray(photos[name], object))[:IMAGES_PER_CLASS]
    ]
    order = generator.permutation(len(drawn))
    drawn = [drawn[number] for number in order]
    num_test = round(TEST_SHARE * len(drawn))
    labels = [name for name, _ in drawn]
    if is_clean:
        labels = list(generator.permutation(labels))
    for split in ("train", "test"):
        for name in names:
            (folder / split / name).mkdir(parents=True)
    trace = None if is_clean else Trace(names[seed % len(names)], PREVALENCES[seed % len(PREVALENCES)])
    keys = []
    for number, ((_, path), label) in enumerate(zip(drawn, labels, strict=True)):
        has_trace = trace is not None and label == trace.class_name and generator.random() < trace.prevalence
        key = f"{'test' if number < num_test else 'train'}/{label}/{number:04}.jpg"
        save(open_photo(path), folder / key, OTHER_QUALITY if has_trace else QUALITY)
        keys.append(key)
    if is_clean:
        return Planted()
    sources = [generator.permutation(keys[:num_test]), generator.permutation(keys[num_test:])]
    copies = []
    for leaks, chosen in zip((True, False), sources, strict=True):
        for number, source in enumerate(chosen[: COPIES_EACH * len(COPIES)]):
            kind, label = COPIES[number % len(COPIES)], str(source).split("/")[1]
            key = f"train/{label}/{'leak' if leaks else 'copy'}{number:03}.jpg"
            write_copy(folder / str(source), folder / key, kind)
            copies.append(Copy(kind, key, str(source), leaks))
    return Planted(tuple(copies), trace)


def write_copy(source: Path, target: Path, kind: str) -> None:
    """Write a copy of one of the `COPIES`."""
    image = open_photo(source)
    width, height = image.size
    quality = QUALITY
    if kind == "exact":
        target.write_bytes(source.read_bytes())
        return
    if kind == "recompressed":
        quality = LOW_QUALITY
    elif kind == "resized":
        image = image.resize((round(0.6 * width), round(0.6 * height)), Image.Resampling.LANCZOS)
    elif kind == "mirrored":
        image = ImageOps.mirror(image)
    else:
        kept = {"cropped by 5 %": 0.95, "cropped by 10 %": 0.9}[kind]
        left, top = round((1 - kept) / 2 * width), round((1 - kept) / 2 * height)
        image = image.crop((left, top, width - left, height - top))
    save(image, target, quality)


def open_photo(path: Path) -> Image.Image:
    """Decode a photo to RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def save(image: Image.Image, path: Path, quality: int) -> None:
    """Save a JPEG, its traces all from the quality."""
    image.save(path, "JPEG", quality=quality)
