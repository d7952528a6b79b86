"""Files and arrays as batches of a plan's evaluation, for predictions in Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.batch.buffers import BatchBuffer, BufferPool, Normalizer
from ...pipeline.compiler.program import Program
from ...pipeline.errors import LightwellError, PlanError
from ...pipeline.geometry import Size
from ...pipeline.index.build import index_files
from ...pipeline.index.sources.listing import as_text
from ...pipeline.load.loader import upright_size
from ...pipeline.machine import default_memory_bytes
from ...pipeline.memory.budget import split_budget
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.runtime.batch_builder import BatchBuilder
from ...pipeline.runtime.open_view import OpenView
from ...pipeline.text import quoted
from ...pipeline.warning_filter import ignored_warnings
from ..zoo.plan_checks import output_shape

if TYPE_CHECKING:
    import torch

Image = str | Path | np.ndarray
"""A file, or uint8 RGB pixels of shape (H, W, 3)."""
GivenBatch = tuple[list[list[int]], list[str], list[Size], "torch.Tensor"]
"""Of each image the places where it was given, its name, and height and width of the upright picture; and the pixels."""


class ImageReader:
    """Prepares files and arrays as a plan's evaluation does. One thread at a time.

    Args:
        program: the compiled plan.
        num_threads: threads that decode and transform files.
    """

    def __init__(self, program: Program, num_threads: int) -> None:
        self.program = program
        self._num_threads = num_threads
        self._pool = BufferPool()

    def read(self, given: Sequence[Image], errors: list[str]) -> Iterator[GivenBatch]:
        """Yield batches of the images that can be used, a file that is given several times once.

        Args:
            given: files and arrays.
            errors: receives why each image could not be used, in the order of ``given``.

        Raises:
            PlanError: an array is no uint8 RGB image.
        """
        places: dict[str, list[int]] = {}
        arrays: list[int] = []
        for number, image in enumerate(given):
            if isinstance(image, np.ndarray):
                _check_array(image, number)
                arrays.append(number)
            else:
                places.setdefault(as_text(str(image)), []).append(number)
        if places:
            failed = dict.fromkeys(places, "not read")
            for keys, sizes, tensor in self._read_files([given[own[0]] for own in places.values()], failed):
                yield [places[key] for key in keys], list(keys), sizes, tensor
                for key in keys:
                    del failed[key]
            for key, reason in failed.items():
                for number in places[key]:
                    errors[number] = reason
        for numbers, tensor, reasons in self._read_arrays(given, arrays):
            for number, reason in reasons.items():
                errors[number] = reason
            if numbers:
                sizes = [given[number].shape[:2] for number in numbers]  # type: ignore[union-attr]
                yield (
                    [[number] for number in numbers],
                    [f"image {number}" for number in numbers],
                    sizes,
                    tensor,
                )

    def _read_files(
        self, paths: Sequence[Any], failed: dict[str, str]
    ) -> Iterator[tuple[Sequence[str], list[Size], torch.Tensor]]:
        """Yield keys, sizes and images of batches of files; reasons of unusable ones are written to ``failed``."""
        index = index_files(paths, num_threads=self._num_threads)
        for key, status in zip(*(index.table[name].to_pylist() for name in ("key", "status")), strict=True):
            failed[key] = status
        columns = index.table.select(["key", "height", "width", "orientation"]).to_pylist()
        sizes = {row["key"]: upright_size(row) for row in columns if row["width"]}
        opened = OpenView.of(self._batch_plan, View(), index)
        split = split_budget(default_memory_bytes(), batch_bytes=opened.largest_batch_bytes, prefetch=1)
        with BatchBuilder(opened, split, num_threads=self._num_threads) as builder:
            for number in range(opened.schedule.num_batches):
                with builder.build(number) as result:
                    if result.error is not None:
                        raise result.error
                    failed |= {entry.key: f"{entry.step}: {entry.reason}" for entry in result.entries}
                    if result.batch is not None and len(result.batch):
                        keys = result.batch.keys
                        yield keys, [sizes[key] for key in keys], result.batch.images

    @cached_property
    def _batch_plan(self) -> Plan:
        """The plan; one image per batch if sizes differ after its transforms."""
        if output_shape(self.program.plan) is not None:
            return self.program.plan
        return self.program.plan.model_copy(
            update={"batch": self.program.plan.batch.model_copy(update={"size": 1})}
        )

    def _read_arrays(
        self, given: Sequence[Any], numbers: Sequence[int]
    ) -> Iterator[tuple[list[int], Any, dict[int, str]]]:
        """Yield numbers and images of batches of arrays, and the reasons of those that a transform rejects."""
        compose = self.program.compose(augment=False)
        found = self.program.normalization
        normalizer = None if found is None else Normalizer(found)
        size = self._batch_plan.batch.size
        for start in range(0, len(numbers), size):
            done: list[int] = []
            images: list[np.ndarray] = []
            reasons: dict[int, str] = {}
            for number in numbers[start : start + size]:
                try:
                    with ignored_warnings():
                        images.append(compose(image=np.ascontiguousarray(given[number]))["image"])
                    done.append(number)
                except LightwellError:
                    raise
                except Exception as error:  # transforms may raise anything; it costs one image, as in a feed
                    reasons[number] = f"policy: {type(error).__name__}: {' '.join(str(error).split())}"
            if not images:
                yield [], None, reasons
                continue
            buffer = BatchBuffer(len(images), normalizer, self._pool)
            for row, image in enumerate(images):
                buffer.put(row, f"image {done[row]}", image)
            yield done, buffer.tensor(), reasons


def as_list(images: Any) -> list[Any]:
    """Return the images as a list of paths and arrays."""
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim != 4):
        return [images]
    return list(images)


def _check_array(image: Any, number: int) -> None:
    """Check that an array is an RGB image.

    Raises:
        PlanError: its type or shape is another.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        got = f"{image.dtype} {tuple(image.shape)}"
        raise PlanError(
            f"images[{number}]: expected uint8 RGB pixels of shape (height, width, 3), got {quoted(got)}; convert it: scale "
            "floats to 0..255, repeat gray three times, drop alpha, move channels last, and turn BGR with [..., ::-1]"
        )
