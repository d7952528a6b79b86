"""Average pooling and a linear layer behind the target layer: gradients are the layer's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ....pipeline.errors import ModelError
from ...zoo.heads import head_module
from ...zoo.map_layout import MapLayout
from ..token_layout import patch_images
from .recorder import record_activation

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value, of float32 logits and gradients from the closed form."""
HALF_TOLERANCE = 3e-2
"""The same in bfloat16 and float16."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A linear layer that gets the mean of the target layer's activations: ``y = W mean_hw(A) + b``."""

    layer: nn.Linear

    def scores(self, activations_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits of these activations in float32; in bfloat16 several classes often have equal logits."""
        pooled = activations_nchw.float().mean((2, 3))
        bias = None if self.layer.bias is None else self.layer.bias.float()
        return nn.functional.linear(pooled, self.layer.weight.float(), bias)

    def explains(self, logits: torch.Tensor, activations_nchw: torch.Tensor) -> bool:
        """Return whether these logits follow from these activations."""
        return is_close(logits.float(), self.scores(activations_nchw), logits.dtype)


def find_linear_head(
    model: nn.Module, name: str, layout: MapLayout, image: torch.Tensor, *, relu_follows: bool
) -> LinearHead | None:
    """Find the linear layer if only average pooling lies between it and the target layer, by values and gradients.

    Both are compared for an image and four copies with a patch each. `Recording` compares the values of every batch
    again, because five images do not show, say, an upper limit of the activations.

    Args:
        model: in eval mode.
        name: the target layer.
        layout: of its output.
        image: (1, C, H, W).
        relu_follows: as for ``record_activation``.
    """
    try:
        _, layer = head_module(model)
    except ModelError:
        return None
    if type(layer) is not nn.Linear:
        return None
    recorded = record_activation(model, name, patch_images(image), relu_follows=relu_follows)
    logits, leaf = recorded.scores(), recorded.activation
    if logits.shape[1] != layer.out_features or layout.to_nchw(leaf).shape[1] != layer.in_features:
        return None
    mixture = torch.arange(1.0, logits.shape[1] + 1).sin().to(logits)  # tests all classes at once
    if not logits.requires_grad:
        return None
    (gradient,) = torch.autograd.grad((logits @ mixture).sum(), leaf, allow_unused=True)
    if gradient is None:
        return None
    found = layout.to_nchw(gradient)
    wanted = (mixture @ layer.weight.detach() / layout.num_cells)[None, :, None, None].expand_as(found)
    head = LinearHead(layer)
    fits = is_close(found, wanted, leaf.dtype) and head.explains(
        logits.detach(), layout.to_nchw(leaf.detach())
    )
    return head if fits else None


def is_close(found: torch.Tensor, wanted: torch.Tensor, precision: torch.dtype) -> bool:
    """Return whether two tensors are equal up to the rounding of a precision."""
    tolerance = TOLERANCE if precision in (torch.float32, torch.float64) else HALF_TOLERANCE
    return bool((found - wanted).abs().amax() <= tolerance * wanted.abs().amax())
