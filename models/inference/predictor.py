"""Predictions in Python: a checkpoint with its preprocessing, called with files or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.compiler.program import Program
from ...pipeline.machine import num_cpus
from ...pipeline.plan.error_policy import ErrorPolicy
from ...pipeline.plan.plan import Plan
from .masks.predictor import MaskPredictor
from .masks.segmenter import Segmenter
from .outputs import SEGMENTATION, Outputs, read_trained
from .reading import Image, ImageReader, as_list
from .saved import plan_of
from .scoring import Scorer

if TYPE_CHECKING:
    import torch

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
) -> Predictor | MaskPredictor:
    """Load a trained model with its preprocessing, to predict files and arrays.

    Args:
        checkpoint: ``best.safetensors`` of a training.
        device: torch device of the model; ``auto`` uses a GPU if available.
        batch_size: images per forward pass.
        num_threads: threads that decode and transform files; 0 for one per core.
        allow_import: modules, including submodules, that transforms of the checkpoint's plan may be imported from, which
            runs their code.

    Returns:
        A ``MaskPredictor`` for a segmentation network, a ``Predictor`` for a classifier.

    Raises:
        ModelError: the file is no checkpoint of a task that can be predicted, or has no plan.
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
    program, num_threads = Program.compile(plan), num_threads or num_cpus()
    if read_trained(path).task == SEGMENTATION:
        return MaskPredictor(program, Segmenter.load(path, device=device), num_threads)
    return Predictor(program, Scorer.load(path, device=device), num_threads)


class Predictor:
    """A classifier with the preprocessing of its training. One thread at a time; the model is never changed."""

    def __init__(self, program: Program, scorer: Scorer, num_threads: int) -> None:
        self.program = program
        self._scorer = scorer
        self._reader = ImageReader(program, num_threads)

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
        given = as_list(images)
        rows = np.full((len(given), len(self.classes)), np.nan, np.float32)
        errors = [""] * len(given)
        for places, names, _, tensor in self._reader.read(given, errors):
            found = self.outputs.probabilities(self._scorer(tensor, names))
            for own, row in zip(places, found, strict=True):
                rows[own] = row
        return Predictions(self.outputs, rows, tuple(errors))
