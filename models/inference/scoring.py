"""Logits and probabilities of a trained classifier: the one function behind predictions, evaluation and test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ...pipeline.errors import ModelError, RunError
from ..training.checkpoint import CheckpointMetadata, load_model, read_metadata
from ..training.evaluation import parameter_dtype
from ..training.train_batch import model_inputs
from ..zoo.forward import eval_mode, run_model

CLASSIFIERS = ("classify",)
"""Tasks whose checkpoints are one label per image."""


def read_classifier(checkpoint: Path) -> CheckpointMetadata:
    """Read the metadata of a classifier's checkpoint, without its weights.

    Raises:
        ModelError: the file is no checkpoint, or one of another task.
    """
    metadata, _ = read_metadata(checkpoint)
    if metadata.task not in CLASSIFIERS:
        raise ModelError(
            f"checkpoint: expected one of a task in {', '.join(CLASSIFIERS)}, got {metadata.task!r} in {checkpoint}; "
            "load its network with lightwell.load_model"
        )
    return metadata


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of logits divided by a temperature: float32, shape (N, classes)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    with np.errstate(under="ignore"):
        powers = np.exp(scaled)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def mean_logits(views: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """Return the logits of the mean probabilities of several views of the same images: float32, shape (N, classes)."""
    mean = np.mean([softmax(view, temperature).astype(np.float64) for view in views], axis=0)
    return np.asarray(temperature * np.log(np.maximum(mean, np.finfo(np.float32).tiny)), dtype=np.float32)


@dataclass(frozen=True)
class Scorer:
    """A classifier on its device, in eval mode."""

    model: torch.nn.Module
    classes: tuple[str, ...]
    temperature: float
    device: torch.device
    flip: bool = False
    """Average the probabilities of every image and its mirror image."""

    @classmethod
    def load(cls, checkpoint: Path, *, device: str = "auto", flip: bool = False) -> Self:
        """Load a classifier.

        Raises:
            ModelError: the file is no checkpoint of a classifier, its weights do not fit, or there is no such device.
        """
        metadata = read_classifier(checkpoint)
        chosen = torch_device(device)
        model = load_model(checkpoint).model.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(model, metadata.classes, metadata.temperature, chosen, flip)

    def __call__(self, images: torch.Tensor, keys: Sequence[str]) -> np.ndarray:
        """Return the logits of a batch of images as a feed makes them: float32, shape (N, classes).

        Raises:
            ModelError: the model does not accept the size of the images.
            RunError: a score is not finite; names the first such image.
        """
        inputs = model_inputs(images, self.device).to(parameter_dtype(self.model))
        with eval_mode(self.model), torch.inference_mode():
            views = [run_model(self.model, inputs)]
            if self.flip:
                views.append(run_model(self.model, inputs.flip(-1)))
        logits = [view.float().cpu().numpy() for view in views]
        finite = np.all([np.isfinite(view).all(axis=1) for view in logits], axis=0)
        if not finite.all():
            raise RunError(
                f"model: expected finite scores, got NaN or infinity for {keys[int(np.argmin(finite))]!r}; "
                "train again with a lower learning rate"
            )
        return logits[0] if len(logits) == 1 else mean_logits(logits, self.temperature)


def torch_device(name: str) -> torch.device:
    """Return a torch device; ``auto`` is CUDA if available, else the CPU.

    Raises:
        ModelError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ModelError(
            f"device: expected auto, cpu or cuda, got {name!r} ({reason}); choose one that this machine has"
        ) from error
    return device
