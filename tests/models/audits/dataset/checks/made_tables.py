"""Tables of made images, hashed as the columns of a dataset audit describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from lightwell.models.audits.dataset.dataset_table import DatasetTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COSINES = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)


def make_table(num_rows: int, num_classes: int = 2, **fields: Any) -> DatasetTable:
    """Make a table of readable images of one class without measures; fields replace its own."""
    return DatasetTable(
        **{
            "keys": np.array([f"image-{number:05d}.jpg" for number in range(num_rows)], object),
            "labels": np.zeros(num_rows, np.int64),
            "class_names": [f"class-{number}" for number in range(num_classes)],
            "splits": np.full(num_rows, None, object),
            "problems": np.full(num_rows, None, object),
            "seed": 0,
            **fields,
        }
    )


def make_pictures(generator: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
    """Make pictures of 64 px with a few ellipses and some noise."""
    pictures = []
    for _ in range(count):
        picture = np.full((64, 64, 3), generator.integers(0, 256, 3), np.uint8)
        for _ in range(6):
            center, axes = generator.integers(0, 64, 2).tolist(), generator.integers(4, 28, 2).tolist()
            color = generator.integers(0, 256, 3).tolist()
            cv2.ellipse(picture, center, axes, float(generator.uniform(0, 180)), 0, 360, color, -1)
        noise = generator.normal(0, 3, picture.shape)
        pictures.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
    return pictures


def copies_of(picture: NDArray[np.uint8]) -> Mapping[str, NDArray[np.uint8]]:
    """Make changed copies of a picture by what was done."""
    larger = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_CUBIC)
    return {
        "compressed": jpeg(picture, 40),
        "halved": cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA),
        "doubled": jpeg(larger, 80),
        "mirrored": np.ascontiguousarray(picture[:, ::-1]),
        "turned": np.ascontiguousarray(np.rot90(picture)),
    }


def jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compress and decompress a picture."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def picture_table(pictures: Sequence[NDArray[np.uint8]], **fields: Any) -> DatasetTable:
    """Make a table with the measures of pictures that near duplicates are found by."""
    rows = [_measures(picture) for picture in pictures]
    shapes = np.array([picture.shape[:2] for picture in pictures], np.float64)
    files = {"height": shapes[:, 0], "width": shapes[:, 1], "bytes": shapes.prod(axis=1)}
    images = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return make_table(len(pictures), **{"files": files, "images": images, **fields})


def _measures(picture: NDArray[np.uint8]) -> dict[str, Any]:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = _COSINES @ small @ _COSINES.T
    steps = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int64)
    turned = [
        _bits(block * signs[:, None] ** vertical * signs[None] ** horizontal > 0)
        for signs in (np.where(np.arange(8) % 2, -1, 1),)
        for block in (low, low.T)
        for vertical in (0, 1)
        for horizontal in (0, 1)
    ]
    return {
        "phash": _bits(low > 0),
        "phash_invariant": min(turned, key=bytes),
        "dhash": np.packbits(steps[:, 1:] > steps[:, :-1]),
        "histogram": np.bincount(gray.ravel() >> 4, minlength=16) / gray.size,
        "brightness": gray.mean(),
        "contrast": gray.std(),
        **{f"mean_{name}": picture[..., channel].mean() for channel, name in enumerate("rgb")},
    }


def _bits(signs: NDArray[np.bool_]) -> NDArray[np.uint8]:
    flat = signs.ravel().copy()
    flat[0] = False
    return np.packbits(flat)
