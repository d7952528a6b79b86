"""Tasks whose checkpoints can be asked, and the meaning of a classifier's logits: probabilities and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ...pipeline.errors import ModelError
from ..training.checkpoint import CheckpointMetadata, read_metadata

ONE_CLASS, SEVERAL_CLASSES, SEGMENTATION = "classify", "multilabel", "segment"
"""Tasks whose checkpoints can be asked: one class per image, any number of them, or one per pixel."""
SEPARATOR = "|"
"""Between the classes of an image, as in tables that are indexed."""
DEFAULT_THRESHOLD = 0.5


def read_trained(
    checkpoint: Path, tasks: Sequence[str] = (ONE_CLASS, SEVERAL_CLASSES, SEGMENTATION)
) -> CheckpointMetadata:
    """Read the metadata of a checkpoint of one of some tasks, without its weights.

    Raises:
        ModelError: the file is no checkpoint, or one of another task.
    """
    metadata, _ = read_metadata(checkpoint)
    if metadata.task not in tasks:
        raise ModelError(
            f"checkpoint: expected one of the tasks {', '.join(tasks)}, got {metadata.task!r} in {checkpoint}; the metrics of its "
            "splits are in result.json of the training, and lightwell.load_model loads the network"
        )
    return metadata


def read_classifier(checkpoint: Path) -> CheckpointMetadata:
    """Read the metadata of a classifier's checkpoint, without its weights.

    Raises:
        ModelError: the file is no checkpoint, or one of another task.
    """
    return read_trained(checkpoint, (ONE_CLASS, SEVERAL_CLASSES))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of logits divided by a temperature: float32, shape (N, classes)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    with np.errstate(under="ignore"):
        powers = np.exp(scaled)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class Outputs:
    """Outputs of a classifier."""

    classes: tuple[str, ...]
    temperature: float = 1.0
    """Divisor of the logits before the softmax; 1 without calibration."""
    several: bool = False
    """Any number of classes per image, each with a sigmoid of its own."""
    thresholds: tuple[float, ...] = ()
    """Probability from which on each class is predicted, with ``several``."""

    @classmethod
    def of(cls, metadata: CheckpointMetadata) -> Self:
        """Read them from a checkpoint's metadata."""
        several = metadata.task == SEVERAL_CLASSES
        thresholds = metadata.thresholds or (DEFAULT_THRESHOLD,) * len(metadata.classes)
        return cls(metadata.classes, metadata.temperature, several, thresholds if several else ())

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits: float32, shape (N, classes)."""
        if not self.several:
            return softmax(logits, self.temperature)
        return np.asarray(0.5 * (1 + np.tanh(logits.astype(np.float64) / 2)), dtype=np.float32)

    def mean_logits(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of the mean probabilities of several views of the same images: float32, shape (N, classes)."""
        tiny = float(np.finfo(np.float32).tiny)
        mean = np.mean([self.probabilities(view).astype(np.float64) for view in views], axis=0)
        if self.several:
            mean = np.clip(mean, tiny, 1 - np.finfo(np.float32).epsneg)
            return np.asarray(np.log(mean / (1 - mean)), dtype=np.float32)
        return np.asarray(self.temperature * np.log(np.maximum(mean, tiny)), dtype=np.float32)

    def label(self, probabilities: np.ndarray) -> str:
        """Return the predicted class of one image; several are joined by ``|``, and none are the empty string."""
        if not self.several:
            return self.classes[int(probabilities.argmax())]
        chosen = self.chosen(probabilities)
        return SEPARATOR.join(name for name, is_in in zip(self.classes, chosen, strict=True) if is_in)

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """Return whether each class is predicted, with ``several``: bool, of the shape of the probabilities."""
        return np.asarray(probabilities >= np.asarray(self.thresholds, np.float32))
