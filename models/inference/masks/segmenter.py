"""Scores of a trained segmentation network for every pixel: the one forward pass behind masks and their evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ....pipeline.errors import RunError
from ...training.checkpoint import load_model
from ...training.evaluation import parameter_dtype
from ...zoo.device import torch_device
from ...zoo.forward import eval_mode, model_inputs, run_model
from ..outputs import SEGMENTATION, read_trained


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network on its device, in eval mode."""

    model: torch.nn.Module
    classes: tuple[str, ...]
    device: torch.device
    flip: bool = False
    """Average the probabilities of every image and its mirror image, mirrored back."""

    @classmethod
    def load(cls, checkpoint: Path, *, device: str = "auto", flip: bool = False) -> Self:
        """Load a segmentation network.

        Raises:
            ModelError: the file is no checkpoint of one, its weights do not fit, or there is no such device.
        """
        metadata = read_trained(checkpoint, (SEGMENTATION,))
        chosen = torch_device(device)
        model = load_model(checkpoint).model.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(model, metadata.classes, chosen, flip)

    def __call__(self, images: torch.Tensor, keys: Sequence[str]) -> torch.Tensor:
        """Return the scores of a batch of images as a feed makes them: float32, shape (N, classes, H, W), on the device.

        Their softmax along the classes are the probabilities.

        Raises:
            ModelError: the network does not accept the size of the images.
            RunError: a score is not finite; names the first such image.
        """
        inputs = model_inputs(images, self.device).to(parameter_dtype(self.model))
        with eval_mode(self.model), torch.inference_mode():
            scores = run_model(self.model, inputs).float()
            if self.flip:
                mirrored = run_model(self.model, inputs.flip(-1)).float().flip(-1)
                mean = (scores.softmax(dim=1) + mirrored.softmax(dim=1)) / 2
                scores = torch.where(
                    mean.isfinite(), mean.clamp_min(torch.finfo(torch.float32).tiny).log(), mean
                )
            finite = scores.flatten(1).isfinite().all(dim=1).cpu().numpy()
        if not finite.all():
            raise RunError(
                f"model: expected finite scores, got NaN or infinity for {keys[int(np.argmin(finite))]!r}; "
                "train again with a lower learning rate"
            )
        assert isinstance(scores, torch.Tensor)
        return scores


def class_masks(scores: torch.Tensor) -> np.ndarray:
    """Return the class with the highest score of each pixel: uint8, shape (N, H, W)."""
    return np.asarray(scores.argmax(dim=1).to(torch.uint8).cpu())
