"""The input of a method: logits, activations, and gradients of any class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ....pipeline.errors import ModelError
from ...zoo.map_layout import MapLayout
from .recorder import Recorded


@dataclass(frozen=True, slots=True)
class Recording:
    """One forward pass of a batch."""

    images_nchw: torch.Tensor
    recorded: Recorded
    scores: torch.Tensor
    """Logits (N, K); with gradients, unless there is a linear head."""
    layout: MapLayout
    layer: str
    head_weight: torch.Tensor | None
    """Weights (K, C) of a linear head behind average pooling; None for other heads."""
    score: Callable[[torch.Tensor, int], torch.Tensor]
    """Runs the model on variants (M, C, H, W) of the image in a row of the batch: logits (M, K), without gradients."""

    @property
    def activations_nchw(self) -> torch.Tensor:
        """Output of the target layer as float32 (N, C, h, w), detached."""
        return self.layout.to_nchw(self.recorded.activation.detach()).float()

    def channel_gradients(self, classes: torch.Tensor) -> torch.Tensor:
        """Return the gradients of the classes' logits, averaged over cells, as float32 (N, C)."""
        if self.head_weight is not None:
            return self.head_weight[classes].float() / self.layout.num_cells
        return self.gradients(classes).mean((2, 3))

    def gradients(self, classes: torch.Tensor) -> torch.Tensor:
        """Return the gradients of the classes' logits by the activations as float32 (N, C, h, w).

        In eval mode the images of a batch are independent, so one backward pass of the summed logits gives all of them.

        Raises:
            ModelError: the layer, or its patch tokens, do not affect the logits.
        """
        if self.head_weight is not None:
            values = self.channel_gradients(classes)[:, :, None, None]
            return values.expand(-1, -1, self.layout.height, self.layout.width)
        chosen = self.scores.gather(1, classes[:, None]).sum()
        gradient = None
        if chosen.requires_grad:
            (gradient,) = torch.autograd.grad(
                chosen, self.recorded.activation, retain_graph=True, allow_unused=True
            )
        if gradient is None:
            raise ModelError(
                f"target layer: expected a layer that affects the logits, got {self.layer!r}, which does not; "
                "name another, or check that the model's head does not detach or disable gradients"
            )
        found = self.layout.to_nchw(gradient)
        if self.layout.num_prefix and not found.any() and gradient[:, : self.layout.num_prefix].any():
            raise ModelError(
                f"target layer: expected a layer whose patch tokens affect the logits, got {self.layer!r}, after which only "
                "the class token does; name a layer before the last attention, such as the first norm of the last block"
            )
        return found.float()
