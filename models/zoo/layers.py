"""Outputs of a network's layers, and the last one that is a spatial map."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from .forward import run_model
from .heads import head_module
from .map_layout import MapLayout, possible_layouts

_NOT_MAPS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Flatten,
)


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """The output of one layer."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    input_cells: int
    """Cells of the layer's input map; 0 if the input is not a map."""


@dataclass(frozen=True, slots=True)
class LayerTrace:
    """The layers of one forward pass up to the head."""

    outputs: list[LayerOutput]
    """In order of completion."""
    num_before_attention: int | None
    """Number of outputs before the last attention starts; None without attention."""


class _HeadReachedError(Exception):
    """Raised by a hook to stop the forward pass at the head."""


def trace_layers(model: nn.Module, image: torch.Tensor) -> LayerTrace:
    """Run a network up to its head and list the outputs of all layers.

    Args:
        model: in eval mode; may be on the meta device, together with the image.
        image: (1, C, H, W).
    """
    seen: list[LayerOutput] = []
    attention: list[int] = []
    head_name, head = head_module(model)
    names = {module: name for name, module in model.named_modules() if name and name != head_name}

    def start(_module: nn.Module, _inputs: object) -> None:
        attention.append(len(seen))

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, torch.Tensor) and not isinstance(module, _NOT_MAPS):
            first = inputs[0] if inputs else None
            cells = (
                first.shape[2] * first.shape[3] if isinstance(first, torch.Tensor) and first.ndim == 4 else 0
            )
            seen.append(LayerOutput(names[module], module, tuple(output.shape), int(cells)))

    def stop(_module: nn.Module, _inputs: object) -> None:
        raise _HeadReachedError

    handles = [head.register_forward_pre_hook(stop)]
    for module in names:
        handles.append(module.register_forward_hook(note))
        if _is_attention(module):
            handles.append(module.register_forward_pre_hook(start))
    try:
        with torch.no_grad():
            run_model(model, image, features_only=True)
    except _HeadReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return LayerTrace(seen, attention[-1] if attention else None)


def map_candidates(outputs: list[LayerOutput], size: tuple[int, int]) -> list[LayerOutput]:
    """List the layers that may be the last spatial map, from the last one back: called once, shaped like a map.

    Args:
        outputs: from ``trace_layers``.
        size: height and width of the image.
    """
    num_calls = Counter(each.name for each in outputs)
    return [each for each in reversed(outputs) if num_calls[each.name] == 1 and _may_be_map(each, size)]


def _may_be_map(output: LayerOutput, size: tuple[int, int]) -> bool:
    if len(output.shape) == 3:
        # In a transformer block, only the block itself and its norms are usual targets.
        is_norm = "norm" in type(output.module).__name__.lower()
        if not is_norm and not any(True for _ in output.module.children()):
            return False
    return any(True for _ in possible_layouts(output.shape, size))


def last_map(model: nn.Module, image: torch.Tensor) -> tuple[str, MapLayout] | None:
    """Find the last layer whose output is a spatial map that the logits depend on, from shapes alone.

    ``explain.target_layer`` confirms the choice on a real image. Where only class tokens reach the head, patch tokens
    matter up to the last attention.

    Args:
        model: in eval mode; may be on the meta device, together with the image.
        image: (1, C, H, W).

    Returns:
        The layer's dotted name and the layout of its output; None if no layer before the head is a map.
    """
    size = int(image.shape[2]), int(image.shape[3])
    trace = trace_layers(model, image)
    outputs = trace.outputs
    reads_class_token = getattr(model, "global_pool", None) == "token" or hasattr(model, "class_token")
    if reads_class_token and trace.num_before_attention is not None:
        outputs = outputs[: trace.num_before_attention]
    num_prefix = getattr(model, "num_prefix_tokens", None)
    for found in map_candidates(outputs, size):
        if found.shape[0] == 1:
            return found.name, next(possible_layouts(found.shape, size, num_prefix))
    return None


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "attention" in name or name.endswith("attn")
