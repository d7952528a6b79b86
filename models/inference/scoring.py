"""Logits of a trained classifier: the one forward pass behind predictions, evaluation and test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ...pipeline.errors import RunError
from ..training.checkpoint import load_model
from ..training.evaluation import parameter_dtype
from ..zoo.device import torch_device
from ..zoo.forward import eval_mode, model_inputs, run_model
from .outputs import Outputs, read_classifier


@dataclass(frozen=True)
class Scorer:
    """A classifier on its device, in eval mode."""

    model: torch.nn.Module
    outputs: Outputs
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
        return cls(model, Outputs.of(metadata), chosen, flip)

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
        return logits[0] if len(logits) == 1 else self.outputs.mean_logits(logits)
