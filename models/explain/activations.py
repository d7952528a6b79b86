"""Layout of a layer's output in a model: how its activations form a map."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ...pipeline.errors import ModelError
from ..zoo.forward import run_model
from ..zoo.map_layout import MapLayout
from .cam.recorder import get_layer
from .token_layout import find_layout, may_be_nchw, patch_images

MIN_PROBE_SIZE = 224
"""Long side in pixels at which the layout is probed again if it cannot be determined on a small image."""


def layer_layout(model: nn.Module, name: str, image: torch.Tensor) -> MapLayout | None:
    """Determine the layout of a layer's output for images of this size; None if it is not a spatial map.

    The probe of ``token_layout`` decides. If the response is too uniform, as in 2 x 2 maps whose cells all have the whole
    image as receptive field, a Conv2d or BatchNorm2d inside the layer with an output of this height and width shows that
    it is (N, C, h, w); otherwise the probe is repeated with a larger image.

    Args:
        model: in eval mode.
        name: name of the layer.
        image: (1, C, H, W), input of the model.
    """
    num_prefix = getattr(model, "num_prefix_tokens", None)
    output, conv_maps = layer_output(model, name, patch_images(image))
    if output is None:
        return None
    size = int(image.shape[2]), int(image.shape[3])
    found = find_layout(output, size, num_prefix)
    if found is not None or output.ndim != 4 or not may_be_nchw(output, size):
        return found
    if tuple(output.shape[2:]) in conv_maps:
        return MapLayout("NCHW", int(output.shape[2]), int(output.shape[3]))
    return _layout_at_large(model, name, image, output)


def layer_output(
    model: nn.Module, name: str, images: torch.Tensor
) -> tuple[torch.Tensor | None, set[tuple[int, ...]]]:
    """Run a model without gradients; returns a layer's output, and the map sizes of the convolutions inside it.

    The output is None if the layer is not called or does not return a tensor.
    """
    outputs: list[object] = []
    maps: set[tuple[int, ...]] = set()

    def note(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if output.ndim == 4:
            maps.add(tuple(output.shape[2:]))

    layer = get_layer(model, name)
    handles = [
        module.register_forward_hook(note)
        for module in layer.modules()
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    ]
    handles.append(layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)))
    try:
        with torch.no_grad():
            run_model(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return (outputs[0] if outputs and isinstance(outputs[0], torch.Tensor) else None), maps


def _layout_at_large(
    model: nn.Module, name: str, image: torch.Tensor, output: torch.Tensor
) -> MapLayout | None:
    """Determine the axes of a layer with a larger image, and the map size from its output for the given image."""
    size = image.shape[2:]
    if max(size) >= MIN_PROBE_SIZE:
        return None
    larger = functional.interpolate(
        image.float(), scale_factor=MIN_PROBE_SIZE / max(size), mode="bilinear"
    ).to(image)
    try:
        at_large, _ = layer_output(model, name, patch_images(larger))
    except ModelError:  # fixed input size
        return None
    if at_large is None:
        return None
    found = find_layout(at_large, (int(larger.shape[2]), int(larger.shape[3])))
    if found is None or found.kind == "NLC":
        return None
    height, width = output.shape[2:4] if found.kind == "NCHW" else output.shape[1:3]
    return MapLayout(found.kind, int(height), int(width)) if height * width > 1 else None
