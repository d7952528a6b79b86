"""Memory estimates of samples, from the index, before their files are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..batch.annotations import AnnotationKinds
from ..cache.codec import CachedImage
from ..compiler.program import Program
from ..geometry import Size
from ..index.index import Index
from ..index.mmap_index import IntColumn
from ..load.decode.dali import DALI_MODES
from ..load.decode.decoder import EncodedImage
from ..load.decode.plan import DecodePlan
from ..plan.view import View
from ..rng import derive_seed
from ..transform.params import ParamSampler, SampledParams
from ..transform.size_bound import SizeBound, largest_pixels

RGB = 3
CONVERSION_FACTOR = 4
"""Factor for images that Pillow converts: alpha, 16 bits and other modes, and intermediate copies."""
FLOAT_BYTES = 4
MASK_BYTES = 2
"""Per mask pixel: the sample's mask and its row of the batch."""
NUM_PROBES = 4
SLICE_ROWS = 1 << 20
"""Rows processed together, and the most rows from which probes are selected."""

T = TypeVar("T")


@dataclass(frozen=True)
class SampleSizes:
    """File bytes and image pixels by index row, read from the index on demand."""

    masked: bool
    _bytes: IntColumn
    _width: IntColumn
    _height: IntColumn

    @classmethod
    def of(cls, index: Index) -> SampleSizes:
        """Create the sizes of an index."""
        table = index.table
        columns = (IntColumn(table[name]) for name in ("bytes", "width", "height"))
        return cls(table["mask"].null_count < table.num_rows, *columns)

    def bytes(self, rows: np.ndarray) -> np.ndarray:
        """Return the file bytes of some rows, int64."""
        return self._bytes.take(rows)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the pixels of some rows, int64."""
        return np.asarray(self._width.take(rows) * self._height.take(rows))

    def largest(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Return the pixels of the ``number`` largest images, in any order, scanning the rows in slices."""
        found = np.empty(0, np.int64)
        for first in range(0, len(rows), SLICE_ROWS):
            found = np.concatenate([found, self.pixels(rows[first : first + SLICE_ROWS])])
            if len(found) > number:
                found = np.partition(found, len(found) - number)[len(found) - number :]
        return found


@dataclass(frozen=True)
class OutputSize:
    """Bytes of output images in their batch."""

    constant: int | None
    """Bytes per image if the policy ends in a fixed size."""
    per_pixel: float
    """Otherwise, bytes per pixel of the original image."""

    def bytes(self, pixels: np.ndarray) -> int:
        """Return the total bytes of images whose originals have so many pixels."""
        if self.constant is not None:
            return self.constant * len(pixels)
        return int(self.per_pixel * int(pixels.sum())) + len(pixels)


def estimate_output_size(program: Program, view: View, index: Index, rows: np.ndarray) -> OutputSize:
    """Estimate output sizes by sampling the parameters of a few images of very different sizes."""
    if not len(rows):
        return OutputSize(0, 0.0)
    sizes = SampleSizes.of(index)
    if len(rows) > SLICE_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, SLICE_ROWS).astype(int)]
    ordered = rows[np.argsort(sizes.pixels(rows), kind="stable")]
    probes = ordered[np.linspace(0, len(ordered) - 1, NUM_PROBES).astype(int)]
    routes = program.routes(augment=view.augment, backend="opencv")
    kinds = AnnotationKinds.of(index)
    compose = program.compose(augment=view.augment, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
    param_sampler = ParamSampler(compose, routes.num_sampled)
    targets = kinds.empty_targets()
    found: set[Size] = set()
    grown: list[float] = []
    width_bytes = 1
    table = index.table.select(["key", "width", "height"]).take(probes)
    for sample in table.to_pylist():
        size = (sample["height"], sample["width"])
        seed = derive_seed("augment", program.plan.seed, view.first_epoch, sample["key"])
        end: Size | None = None
        try:
            sampled = param_sampler.sample(seed, size, **targets)
            end = sampled.size
            if not param_sampler.is_finished(sampled):
                image = param_sampler.finish(np.zeros((*end, RGB), np.uint8), sampled)["image"]
                end, width_bytes = (image.shape[0], image.shape[1]), max(width_bytes, image.dtype.itemsize)
        except Exception:  # fails again in the sample worker and is quarantined there
            if end is None:
                continue
        found.add(end)
        grown.append(end[0] * end[1] / (size[0] * size[1]))
    bytes_per_pixel = RGB * (FLOAT_BYTES if program.normalization else width_bytes)
    bytes_per_pixel += MASK_BYTES if sizes.masked else 0
    constant = None
    if len(found) == 1 and len(np.unique(sizes.pixels(probes))) > 1:
        height, width = next(iter(found))
        constant = height * width * bytes_per_pixel
    return OutputSize(constant, bytes_per_pixel * max(grown, default=1.0))


def max_sample_bytes(
    file: EncodedImage | None,
    cached_image: CachedImage | None,
    copies: int = 2,
    size_bound: SizeBound | None = None,
) -> int:
    """Return an upper bound of the bytes of one sample, whatever its sampled parameters.

    Args:
        file: its file, if it was read.
        cached_image: its cached image, if any.
        copies: number of full-size images in memory at once: decoded, transformed, and one to be cached.
        size_bound: upper bound of the size within the policy; None to ignore growth.
    """
    size = file.size if file is not None else cached_image.size if cached_image is not None else None
    if size is None:
        return 0
    full = copies * _full_bytes(file) if file is not None else 2 * RGB * size[0] * size[1]
    grown = 0 if size_bound is None else size_bound.pixels(size) - size[0] * size[1]
    return full + RGB * grown


def estimate_sample_bytes(file: EncodedImage, decoding: DecodePlan, sampled: SampledParams) -> int:
    """Estimate the bytes of one sample from its decode plan and its sampled parameters."""
    if decoding.kind == "reduced":
        height, width = (-(-side // decoding.shrink) for side in file.size)
        assert decoding.resampling is not None
        decoded = RGB * (height * width + decoding.resampling.size[0] * decoding.resampling.size[1])
    elif (
        decoding.kind == "region"
        and file.format == "jpeg"
        and file.supports_dali()
        and file.supports_region()
    ):
        decoded = RGB * decoding.region.size[0] * decoding.region.size[1]
    else:
        decoded = _full_bytes(file)
    return decoded + RGB * largest_pixels(sampled)


def split_by_bytes(
    items: Sequence[T], num_bytes: Callable[[int], int], max_bytes: int
) -> Iterator[tuple[Sequence[T], int]]:
    """Split items, in order, into runs of at most ``max_bytes``; a larger item is a run of its own."""
    sizes = [num_bytes(number) for number in range(len(items))]
    if items and (total := sum(sizes)) <= max_bytes:
        yield items, total
        return
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and total + size > max_bytes:
            yield items[start:number], total
            start, total = number, 0
        total += size
    if items:
        yield items[start:], total


def _full_bytes(file: EncodedImage) -> int:
    height, width = file.size
    return height * width * RGB * (1 if file.mode in DALI_MODES else CONVERSION_FACTOR)
