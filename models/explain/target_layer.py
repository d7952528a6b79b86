"""Target layer for Grad-CAM: the last layer with a spatial map before pooling and head."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from ...pipeline.errors import ModelError
from ..zoo.build import head_module
from ..zoo.forward import eval_mode, run_model
from .activations import layer_layout, record_activation
from .token_layout import possible_layouts

MAX_TRIED = 24
"""Maximum number of layers to try, from the last one back."""

_NOT_MAPS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Flatten,
)


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """Target layer for Grad-CAM."""

    name: str
    note: str = ""
    """Reason if deeper layers were skipped; otherwise empty."""


@dataclass(frozen=True, slots=True)
class _Output:
    """The output of one layer."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    input_cells: int
    """Cells of the layer's input map; 0 if the input is not a map."""


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
    image = example_nchw[:1]
    size = int(image.shape[2]), int(image.shape[3])
    with eval_mode(model):
        outputs = _layer_outputs(model, image)
        num_calls = Counter(each.name for each in outputs)
        candidates = [
            each for each in reversed(outputs) if num_calls[each.name] == 1 and _may_be_map(each, size)
        ]
        for tried in candidates[:MAX_TRIED]:
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


def _may_be_map(output: _Output, size: tuple[int, int]) -> bool:
    if len(output.shape) == 3:
        # In a transformer block, only the block itself and its norms are usual targets.
        is_norm = "norm" in type(output.module).__name__.lower()
        if not is_norm and not any(True for _ in output.module.children()):
            return False
    return any(True for _ in possible_layouts(output.shape, size))


def _patches_reach_logits(model: nn.Module, name: str, image: torch.Tensor, num_prefix: int) -> bool:
    """Return whether patch tokens of a layer, not only the class token, affect the logits."""
    with torch.inference_mode(False), torch.enable_grad():
        logits, activation = record_activation(model, name, image.clone())
        if not logits.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(logits.amax(1).sum(), activation, allow_unused=True)
    if gradient is None:
        return False
    # A zero-initialised head has no gradient at all, whatever the layer.
    return bool(gradient[:, num_prefix:].any()) or not bool(gradient[:, :num_prefix].any())


def _note(outputs: list[_Output], chosen: _Output, cells: tuple[int, int], size: tuple[int, int]) -> str:
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


class _HeadReachedError(Exception):
    """Raised by a hook to stop the forward pass at the head."""


def _layer_outputs(model: nn.Module, image: torch.Tensor) -> list[_Output]:
    """List the outputs of all layers before the head, in order of completion."""
    seen: list[_Output] = []
    head_name, head = head_module(model)
    names = {module: name for name, module in model.named_modules() if name and name != head_name}

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, torch.Tensor) and not isinstance(module, _NOT_MAPS):
            first = inputs[0] if inputs else None
            is_map = isinstance(first, torch.Tensor) and first.ndim == 4
            cells = first.shape[2] * first.shape[3] if is_map and isinstance(first, torch.Tensor) else 0
            seen.append(_Output(names[module], module, tuple(output.shape), int(cells)))

    def stop(_module: nn.Module, _inputs: object) -> None:
        raise _HeadReachedError

    handles = [module.register_forward_hook(note) for module in names]
    handles.append(head.register_forward_pre_hook(stop))
    try:
        with torch.no_grad():
            run_model(model, image, features_only=True)
    except _HeadReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen
