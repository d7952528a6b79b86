"""A network whose head is replaced by probes: activations of images, and the whole model with a probe as its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from ....pipeline.errors import ModelError
from ...explain.cam.explainer import Cam, class_activation_maps, predicted
from ...explain.cam.memory import prepare_memory
from ...explain.cam.recorder import record_activation
from ...explain.perturb.fill import fill_constant
from ...explain.target_layer import find_target_layer
from ...zoo.forward import eval_mode, model_inputs
from ...zoo.heads import head_module, reset_head
from ..gradcam.classes import ClassMatch
from ..gradcam.opened_model import AuditModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from ...features.probe_heads import LinearHead
    from ...zoo.map_layout import MapLayout

BATCH_SIZE = 32
Inputs = Callable[["NDArray[np.uint8]"], torch.Tensor]
"""Images (N, H, W, 3), uint8 RGB, to what the plan makes of them: float NCHW, or uint8 NHWC without a normalisation."""


@dataclass(frozen=True)
class FrozenNetwork:
    """A network of which only pooling and a linear layer follow the target layer; created by `open_frozen_network`."""

    model: nn.Module
    """Changed by `with_head`."""
    cam: Cam
    layout: MapLayout
    to_inputs: Inputs
    device: torch.device
    memory_format: torch.memory_format
    is_normalized: bool

    def activations(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Return the target layer's activations (N, C, h, w) of images (N, H, W, 3), float32 on the CPU."""
        found = [
            self._record(images[first : first + BATCH_SIZE]) for first in range(0, len(images), BATCH_SIZE)
        ]
        return torch.cat(found)

    def _record(self, images: NDArray[np.uint8]) -> torch.Tensor:
        recorded = record_activation(
            self.model,
            self.cam.name,
            self.inputs(images),
            relu_follows=self.cam.relu_follows,
            gradients=False,
        )
        return self.layout.to_nchw(recorded.activation).float().cpu().contiguous()

    def inputs(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Return images as the model takes them."""
        return model_inputs(self.to_inputs(images), self.device, self.memory_format)

    def with_head(self, head: LinearHead, names: Sequence[str]) -> AuditModel:
        """Return the network with a probe as its head, as the interventions of an audit use it."""
        reset_head(self.model, len(names))
        layer: Any = head_module(self.model)[1]
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(head.weight).to(layer.weight))
            layer.bias.copy_(torch.from_numpy(head.bias).to(layer.bias))
        self.model.eval()
        numbers = tuple(range(len(names)))
        return AuditModel(
            self.model,
            self.device,
            ClassMatch(tuple(names), len(names), numbers, numbers, "name", "the probe"),
            several=False,
            memory_format=self.memory_format,
            remove=partial(fill_constant, value=0.0 if self.is_normalized else None),
        )


@contextmanager
def open_frozen_network(
    model: nn.Module,
    to_inputs: Inputs,
    example: NDArray[np.uint8],
    *,
    device: torch.device,
    is_normalized: bool,
    target_layer: str | None = None,
) -> Iterator[FrozenNetwork]:
    """Open a network, which the caller hands over: its head is replaced.

    Args:
        model: a classifier.
        to_inputs: see `Inputs`.
        example: an image (H, W, 3).
        device: where it runs.
        is_normalized: whether ``to_inputs`` normalises, so that 0 is the mean of the channels.
        target_layer: of the maps; None chooses the usual one.

    Raises:
        ModelError: other layers than pooling and a linear layer follow the target layer.
    """
    model = model.to(device)
    memory_format = prepare_memory(model)
    inputs = model_inputs(to_inputs(example[None]), device, memory_format)
    with eval_mode(model):
        layer = target_layer or find_target_layer(model, inputs)
        with class_activation_maps(model, layer) as cam:
            cam(inputs, [predicted])
            ((layout, head),) = cam.layers.values()
            if head is None or cast("Any", head.layer).bias is None:
                raise ModelError(
                    f"calibrate: expected a network with average pooling and a linear layer behind {layer!r}, got "
                    f"{type(model).__name__} with other layers; leave calibrate out, or name another target_layer"
                )
            yield FrozenNetwork(model, cam, layout, to_inputs, device, memory_format, is_normalized)
