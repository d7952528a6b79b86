"""Record activations of a model: eval mode, layers by name, a layer's output with gradients from there on."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...pipeline.errors import ModelError, did_you_mean
from ..zoo.forward import run_model
from ..zoo.map_layout import MapLayout
from .token_layout import find_layout, may_be_nchw, patch_images

MIN_PROBE_SIZE = 224
"""Long side in pixels at which the layout is probed again if it cannot be determined on a small image."""


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a layer by its dotted name.

    Raises:
        ModelError: no such layer; the message lists the closest names.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in modules:
        raise ModelError(
            f"target layer: expected a layer of {type(model).__name__}, got {name!r}; "
            f"{did_you_mean(name, modules) or 'see model.named_modules()'}"
        )
    return modules[name]


@dataclass(slots=True)
class ActivationRecorder:
    """Forward hook that starts recording gradients at a layer's output."""

    name: str
    activation: torch.Tensor | None = None
    """The layer's output, a leaf tensor to differentiate by."""
    forwarded: torch.Tensor | None = field(default=None, repr=False)

    def start(self, value: torch.Tensor) -> torch.Tensor:
        """Store a value as leaf tensor and return a copy for the model to continue with."""
        # A copy, because an in-place ReLU may follow and must not change the leaf.
        torch.set_grad_enabled(True)
        self.activation = value.detach().requires_grad_()
        self.forwarded = self.activation.clone()
        return self.forwarded

    def hook(self, _module: nn.Module, _inputs: object, output: object) -> torch.Tensor:
        """Start at the output of the hooked layer.

        Raises:
            ModelError: the layer is called a second time, or its output is not a tensor.
        """
        if self.activation is not None:
            raise ModelError(
                f"target layer: expected a layer that is called once per image, got {self.name!r}, "
                "which is called again; name the block around it"
            )
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"target layer: expected a layer with one tensor as its output, got {type(output).__name__} "
                f"from {self.name!r}; name a layer inside it or after it"
            )
        return self.start(output)


class _StartAfterRelu(TorchFunctionMode):
    """Starts recording after a functional ReLU of the hooked layer's output."""

    def __init__(self, recorder: ActivationRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.relu and args[0] is self.recorder.forwarded:
            return self.recorder.start(torch.relu(cast("torch.Tensor", args[0]).detach()))
        return func(*args, **(kwargs or {}))


def record_activation(
    model: nn.Module, name: str, images: torch.Tensor, *, relu_follows: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a model, recording gradients only after a layer; returns the logits (N, K) and the layer's output.

    Raises:
        ModelError: the layer is not called, is called twice or returns no tensor; the logits are not (N, K).
    """
    recorder = ActivationRecorder(name)
    handle = get_layer(model, name).register_forward_hook(recorder.hook)
    try:
        # The hook enables gradients halfway through; leaving no_grad() restores the caller's mode.
        with torch.no_grad(), _StartAfterRelu(recorder) if relu_follows else nullcontext():
            logits = run_model(model, images)
    finally:
        handle.remove()
    if recorder.activation is None:
        raise ModelError(
            f"target layer: expected a layer that the model calls, got {name!r}, which is not called; "
            "name another, or use find_target_layer"
        )
    if not (isinstance(logits, torch.Tensor) and logits.ndim == 2):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"model: expected logits (N, K), got {got}; Grad-CAM explains classifiers")
    return logits, recorder.activation


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
