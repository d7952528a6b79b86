"""Predictions in Python: a checkpoint with its preprocessing, called with files or arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.batch.buffers import BatchBuffer, BufferPool, Normalizer
from ...pipeline.compiler.program import Program
from ...pipeline.errors import LightwellError, PlanError
from ...pipeline.index.build import index_files
from ...pipeline.index.sources.listing import as_text
from ...pipeline.machine import default_memory_bytes, num_cpus
from ...pipeline.memory.budget import split_budget
from ...pipeline.plan.error_policy import ErrorPolicy
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.runtime.batch_builder import BatchBuilder
from ...pipeline.runtime.open_view import OpenView
from ...pipeline.text import quoted
from ...pipeline.warning_filter import ignored_warnings
from ..zoo.plan_checks import output_shape
from .outputs import Outputs, read_classifier
from .saved import plan_of
from .scoring import Scorer

if TYPE_CHECKING:
    import torch

Image = str | Path | np.ndarray
"""A file, or uint8 RGB pixels of shape (H, W, 3)."""
NO_INDEX = Path("files")
"""Stands for the index in a plan whose index is never opened."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Class of one image, or the reason why there is none."""

    label: str | None
    """Name of the predicted class; None if the image could not be used. Several classes are joined by ``|``."""
    probability: float
    """Of the most probable class; NaN if the image could not be used."""
    probabilities: np.ndarray
    """float32, shape (classes,), in the order of ``Predictor.classes``."""
    error: str = ""
    """Why the image could not be used."""


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """Predictions of several images, in the order in which they were given."""

    outputs: Outputs
    probabilities: np.ndarray
    """float32, shape (N, classes); NaN for images that could not be used."""
    errors: tuple[str, ...]
    """For each image why it could not be used; empty if it could."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Name of each image's predicted class, or names joined by ``|``; None for images that could not be used."""
        return tuple(one.label for one in self)

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, number: Any) -> Any:
        """Return one prediction, or a tuple of those of a slice."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(*number.indices(len(self))))
        row, error = self.probabilities[number], self.errors[number]
        if error:
            return Prediction(None, float("nan"), row, error)
        return Prediction(self.outputs.label(row), float(row.max()), row)


def load(
    checkpoint: Path | str,
    *,
    device: str = "auto",
    batch_size: int = 32,
    num_threads: int = 0,
    allow_import: Sequence[str] = (),
) -> Predictor:
    """Load a trained classifier with its preprocessing, to predict files and arrays.

    Args:
        checkpoint: ``best.safetensors`` of a training.
        device: torch device of the model; ``auto`` uses a GPU if available.
        batch_size: images per forward pass.
        num_threads: threads that decode and transform files; 0 for one per core.
        allow_import: modules, including submodules, that transforms of the checkpoint's plan may be imported from, which
            runs their code.

    Raises:
        ModelError: the file is no checkpoint of a classifier, or has no plan.
        PlanError: a transform of its plan does not exist or is not allowed.
    """
    path = Path(checkpoint)
    plan = plan_of(
        path,
        NO_INDEX,
        batch_size=batch_size,
        allow_import=allow_import,
        errors=ErrorPolicy(on_error="skip", max_bad_share=None).model_dump(),
    )
    read_classifier(path)
    return Predictor(Program.compile(plan), Scorer.load(path, device=device), num_threads or num_cpus())


class Predictor:
    """A classifier with the preprocessing of its training. One thread at a time; the model is never changed."""

    def __init__(self, program: Program, scorer: Scorer, num_threads: int) -> None:
        self.program = program
        self._scorer = scorer
        self._num_threads = num_threads
        self._pool = BufferPool()

    @property
    def outputs(self) -> Outputs:
        """Meaning of the network's outputs."""
        return self._scorer.outputs

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.outputs.classes

    @property
    def plan(self) -> Plan:
        """Preprocessing as a plan, without an index."""
        return self.program.plan

    @property
    def temperature(self) -> float:
        """Divisor of the logits, fitted on the validation split; 1 without calibration."""
        return self.outputs.temperature

    @property
    def model(self) -> torch.nn.Module:
        """The network, in eval mode."""
        return self._scorer.model

    def __call__(self, images: Image | Sequence[Image]) -> Predictions:
        """Predict files or arrays.

        Files are decoded and transformed exactly as the plan's evaluation does; arrays are transformed so. A file that
        cannot be used costs its own prediction only.

        Args:
            images: one or several paths or URIs, or arrays of uint8 RGB pixels of shape (H, W, 3); a single array of
                several images has the shape (N, H, W, 3).

        Raises:
            PlanError: an array is no uint8 RGB image, whose meaning would be a guess.
            ModelError: the model does not accept the size of the transformed images.
        """
        given = _as_list(images)
        rows = np.full((len(given), len(self.classes)), np.nan, np.float32)
        errors = [""] * len(given)
        paths = [number for number, image in enumerate(given) if not isinstance(image, np.ndarray)]
        arrays = [number for number, image in enumerate(given) if isinstance(image, np.ndarray)]
        for number in arrays:
            _check_array(given[number], number)
        places: dict[str, list[int]] = {}
        for number in paths:
            places.setdefault(as_text(str(given[number])), []).append(number)
        if places:
            failed = dict.fromkeys(places, "not read")
            files = [given[numbers[0]] for numbers in places.values()]
            for keys, tensor in self._read_files(files, failed):
                found = self.outputs.probabilities(self._scorer(tensor, keys))
                for key, row in zip(keys, found, strict=True):
                    rows[places[key]] = row
                    del failed[key]
            for key, reason in failed.items():
                for number in places[key]:
                    errors[number] = reason
        for numbers, tensor, reasons in self._read_arrays(given, arrays):
            for number, reason in reasons.items():
                errors[number] = reason
            if numbers:
                logits = self._scorer(tensor, [f"image {number}" for number in numbers])
                rows[numbers] = self.outputs.probabilities(logits)
        return Predictions(self.outputs, rows, tuple(errors))

    def _read_files(
        self, paths: Sequence[str | Path], failed: dict[str, str]
    ) -> Iterator[tuple[Sequence[str], torch.Tensor]]:
        """Yield keys and images of batches of files; reasons of unusable ones are written to ``failed``."""
        index = index_files(paths, num_threads=self._num_threads)
        for key, status in zip(*(index.table[name].to_pylist() for name in ("key", "status")), strict=True):
            failed[key] = status
        opened = OpenView.of(self._batch_plan, View(), index)
        split = split_budget(default_memory_bytes(), batch_bytes=opened.largest_batch_bytes, prefetch=1)
        with BatchBuilder(opened, split, num_threads=self._num_threads) as builder:
            for number in range(opened.schedule.num_batches):
                with builder.build(number) as result:
                    if result.error is not None:
                        raise result.error
                    failed |= {entry.key: f"{entry.step}: {entry.reason}" for entry in result.entries}
                    if result.batch is not None and len(result.batch):
                        yield result.batch.keys, result.batch.images

    @cached_property
    def _batch_plan(self) -> Plan:
        """The plan; one image per batch if sizes differ after its transforms."""
        if output_shape(self.plan) is not None:
            return self.plan
        return self.plan.model_copy(update={"batch": self.plan.batch.model_copy(update={"size": 1})})

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


def _as_list(images: Any) -> list[Any]:
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
