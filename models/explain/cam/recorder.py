"""Run a model and keep the output of one layer, with gradients from there on or without any."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ....pipeline.errors import ModelError, did_you_mean
from ...zoo.forward import run_model


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
    """Forward hook that keeps a layer's output."""

    name: str
    gradients: bool
    """Record gradients from the layer on."""
    activation: torch.Tensor | None = None
    """The layer's output; with gradients a leaf tensor to differentiate by."""
    forwarded: torch.Tensor | None = field(default=None, repr=False)
    version: int = 0

    def start(self, value: torch.Tensor) -> torch.Tensor:
        """Keep a value; returns the tensor for the model to continue with."""
        if not self.gradients:
            self.activation = self.forwarded = value
            self.version = value._version
            return value
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """Output of a model and of one of its layers."""

    output: torch.Tensor
    """Logits (N, K), or (N, K, H, W) of a segmentation model."""
    activation: torch.Tensor
    """The layer's output; with gradients a leaf that ``output`` depends on."""
    is_changed: bool
    """The model changed the layer's output in place, so that it is not what the layer returned."""

    def scores(self, regions: torch.Tensor | None = None) -> torch.Tensor:
        """Return a score per class (N, K): the logits, or their sum over the pixels of a region.

        The sum is that of Seg-Grad-CAM (Vinogradova et al., AAAI 2020, equation 3).

        Args:
            regions: bool (N, H, W) for a segmentation model; None for all pixels.

        Raises:
            ModelError: the region does not fit the logits, or was given for a classifier.
        """
        if self.output.ndim == 2:
            if regions is not None:
                raise ModelError(
                    "regions: expected none for a classifier, got some; leave them out, or give a segmentation model"
                )
            return self.output
        if regions is None:
            return self.output.sum((2, 3))
        wanted = (self.output.shape[0], *self.output.shape[2:])
        if tuple(regions.shape) != wanted:
            raise ModelError(
                f"regions: expected a mask of the logits, {wanted}, got {tuple(regions.shape)}; resize it"
            )
        return torch.einsum("nkhw,nhw->nk", self.output, regions.to(self.output))


def record_activation(
    model: nn.Module, name: str, images: torch.Tensor, *, relu_follows: bool = False, gradients: bool = True
) -> Recorded:
    """Run a model and keep a layer's output; with ``gradients``, they are recorded from the layer on only.

    Raises:
        ModelError: the layer is not called, is called twice or returns no tensor; the output is no logits.
    """
    recorder = ActivationRecorder(name, gradients)
    handle = get_layer(model, name).register_forward_hook(recorder.hook)
    try:
        # The hook enables gradients halfway through; leaving no_grad() restores the caller's mode.
        with torch.no_grad(), _StartAfterRelu(recorder) if relu_follows else nullcontext():
            output = run_model(model, images)
    finally:
        handle.remove()
    if recorder.activation is None:
        raise ModelError(
            f"target layer: expected a layer that the model calls, got {name!r}, which is not called; "
            "name another, or use find_target_layer"
        )
    if isinstance(output, dict):  # torchvision's segmentation models
        output = output.get("out")
    if not (isinstance(output, torch.Tensor) and output.ndim in (2, 4)):
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(
            f"model: expected logits (N, K), or (N, K, H, W) of a segmentation model, got {got}; explain one of these"
        )
    is_changed = not gradients and recorder.activation._version != recorder.version
    return Recorded(output, recorder.activation, is_changed)
