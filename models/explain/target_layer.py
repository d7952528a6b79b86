"""Target layer for Grad-CAM: the last layer with a spatial map before pooling and head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...pipeline.errors import ModelError
from ..zoo.forward import eval_mode
from ..zoo.layers import LayerOutput, map_candidates, trace_layers
from .activations import layer_layout
from .cam.recorder import record_activation
from .cam.wrappers import uncompiled, unwrap

MAX_TRIED = 24
"""Maximum number of layers to try, from the last one back."""


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """Target layer for Grad-CAM."""

    name: str
    note: str = ""
    """Reason if deeper layers were skipped; otherwise empty."""


def find_target_layer(model: nn.Module, example_nchw: torch.Tensor) -> str:
    """Find the usual target layer of Grad-CAM: the last layer with a spatial map before pooling and head.

    This is the last layer to finish before the head whose output is a map of more than one cell, according to a probe (see
    ``token_layout``), and for which the logits have a gradient. Pooling to a fixed size, dropout and identities are
    skipped; of nested layers with the same output, the outermost is used. So normalisation and activation after the last
    convolution are included: ``layer4`` (ResNet), ``bn2`` (timm EfficientNet), ``features`` (torchvision MobileNet,
    ConvNeXt, DenseNet, SqueezeNet and VGG, including its last max pooling as in pytorch-grad-cam), ``norm`` (Swin),
    ``blocks.11.norm1`` (ViT).

    Args:
        model: its state is restored.
        example_nchw: an image or batch of the size to explain.

    Raises:
        ModelError: no layer before the head has a spatial map larger than 1 x 1.
    """
    return choose_target_layer(model, example_nchw).name


def choose_target_layer(model: nn.Module, example_nchw: torch.Tensor) -> TargetLayer:
    """Find the layer as ``find_target_layer`` does, with a note if deeper layers have only one cell."""
    model = unwrap(model)
    image = example_nchw[:1]
    size = int(image.shape[2]), int(image.shape[3])
    with eval_mode(model), uncompiled(model):
        outputs = trace_layers(model, image).outputs
        for tried in map_candidates(outputs, size)[:MAX_TRIED]:
            layout = layer_layout(model, tried.name, image)
            if layout is None:
                continue
            if layout.kind != "NLC" or _patches_reach_logits(model, tried.name, image, layout.num_prefix):
                return TargetLayer(tried.name, _note(outputs, tried, (layout.height, layout.width), size))
    raise ModelError(
        f"target layer: expected a layer with a spatial map, got no convolutional map and no grid of "
        f"tokens before the head of {type(model).__name__} at {size[0]} x {size[1]} pixels; use larger images, or "
        "another network"
    )


def _patches_reach_logits(model: nn.Module, name: str, image: torch.Tensor, num_prefix: int) -> bool:
    """Return whether patch tokens of a layer, not only the class token, affect the logits."""
    with torch.inference_mode(False), torch.enable_grad():
        recorded = record_activation(model, name, image.clone())
        logits = recorded.scores()
        if not logits.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(logits.amax(1).sum(), recorded.activation, allow_unused=True)
    if gradient is None:
        return False
    # A zero-initialised head has no gradient at all, whatever the layer.
    return bool(gradient[:, num_prefix:].any()) or not bool(gradient[:, :num_prefix].any())


def _note(
    outputs: list[LayerOutput], chosen: LayerOutput, cells: tuple[int, int], size: tuple[int, int]
) -> str:
    """Return a note if deeper convolutions have only one cell at this size, else an empty string."""
    later = outputs[outputs.index(chosen) + 1 :]
    for output in reversed(later):
        one_place = len(output.shape) == 4 and output.shape[2] * output.shape[3] == 1
        if (
            one_place
            and output.input_cells > 1
            and any(isinstance(m, nn.Conv2d) for m in output.module.modules())
        ):
            return (
                f"{output.name} has one cell at {size[0]} x {size[1]} pixels, so {chosen.name} "
                f"({cells[0]} x {cells[1]} cells) is used; use larger images for maps of deeper layers"
            )
    return ""
