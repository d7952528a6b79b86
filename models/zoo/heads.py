"""Find and replace the classifier layer of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn


def head_module(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the dotted name of the classifier layer, and the layer, a Linear or 1x1 convolution.

    For timm models this is their ``classifier``, otherwise the last Linear, or the last Conv2d if there is no Linear.

    Raises:
        ModelError: the model has no such layer, or was built without one.
    """
    from torch import nn

    for name in head_names(model):
        return name, model.get_submodule(name)
    if is_headless(model):
        raise ModelError(
            f"model: expected a classifier, got {type(model).__name__}, an image encoder without a head; "
            "set num_classes to give it one"
        )
    if hasattr(model, "pretrained_cfg") and not hasattr(model, "reset_classifier"):
        raise ModelError(
            f"model: expected a classifier, got {type(model).__name__}, an encoder whose tokens are for a language model; "
            "choose the network of the same name without `_enc`"
        )
    for kind in (nn.Linear, nn.Conv2d):
        found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ModelError(
        f"expected a model with a Linear or Conv2d classifier, got {type(model).__name__} without one; "
        "use a classifier"
    )


def head_names(model: nn.Module) -> tuple[str, ...]:
    """List the classifier layers of a timm model, two for distilled models; empty for other models."""
    from torch import nn

    modules = dict(model.named_modules())
    return tuple(name for name in _timm_heads(model) if isinstance(modules.get(name), nn.Linear | nn.Conv2d))


def _timm_heads(model: nn.Module) -> tuple[str, ...]:
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def declared_heads(model: nn.Module) -> tuple[str, ...]:
    """List the names of the main classifier layers, also those that an image encoder gets with a number of classes."""
    return _timm_heads(model) if is_headless(model) else head_names(model) or (head_module(model)[0],)


def is_headless(model: nn.Module) -> bool:
    """Return whether a timm model was built without a classifier layer, such as the image encoders of DINO and CLIP."""
    return getattr(model, "num_classes", None) == 0 and hasattr(model, "reset_classifier")


def is_projection(model: nn.Module) -> bool:
    """Return whether the published last layer of a timm model is a projection to embeddings, such as CLIP's, not a classifier.

    Classifiers of timm have the classes of a part of ImageNet, or more than ``MAX_WIDTH`` others.
    """
    from timm.data.imagenet_info import infer_imagenet_subset

    published = getattr(model, "pretrained_cfg", None) or {}
    width = published.get("num_classes") or 0
    if not hasattr(model, "reset_classifier") or published.get("label_names") or not 0 < width <= MAX_WIDTH:
        return False
    return infer_imagenet_subset(published) is None


MAX_WIDTH = 10_000
"""Outputs of timm's projections are at most so many; other classifiers than ImageNet's have more."""
AUXILIARY_INPUTS = {"aux1": "inception4a", "aux2": "inception4d", "AuxLogits": "Mixed_6e"}
"""Auxiliary heads of torchvision's GoogLeNet and Inception v3, and the block whose output each of them takes."""


def auxiliary_head_names(model: nn.Module) -> tuple[str, ...]:
    """List the auxiliary heads of torchvision's GoogLeNet and Inception v3, if the model was built with them."""
    return tuple(name for name in AUXILIARY_INPUTS if getattr(model, name, None) is not None)


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Replace the classifier layers in place by new ones, randomly initialised with torch's global generator.

    Args:
        model: a classifier for which ``head_module`` finds a layer, or an image encoder without a head, which gets one.
        num_classes: number of outputs of the new layer.

    Raises:
        ModelError: the model has no classifier layer, or num_classes is below 1.
    """
    if num_classes < 1:
        raise ModelError(
            f"num_classes: expected at least 1, got {num_classes}; count the classes of the data"
        )
    first = next(model.parameters())
    if hasattr(model, "reset_classifier") and (head_names(model) or is_headless(model)):
        cast("Any", model).reset_classifier(num_classes)
        model.to(device=first.device, dtype=first.dtype)
        return
    for name in classifier_layers(model):
        _replace_layer(model, name, num_classes)
    if hasattr(model, "num_classes"):
        cast("Any", model).num_classes = num_classes


def _replace_layer(model: nn.Module, name: str, num_outputs: int) -> None:
    from torch import nn

    old = model.get_submodule(name)
    weight = cast("torch.Tensor", old.weight)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(
            old.in_channels,
            num_outputs,
            cast("Any", old.kernel_size),
            cast("Any", old.stride),
            cast("Any", old.padding),
            bias=old.bias is not None,
        )
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_outputs, bias=old.bias is not None)
    parent = model.get_submodule(name.rpartition(".")[0])
    new = new.to(device=weight.device, dtype=weight.dtype).train(old.training)
    setattr(parent, name.rpartition(".")[2], new)


def classifier_layers(model: nn.Module) -> tuple[str, ...]:
    """List the names of all classifier layers: two for distilled models, also the last layers of auxiliary heads."""
    if names := head_names(model):
        return names
    head = head_module(model)[0]
    auxiliary = (
        f"{name}.{next(layer for layer in ('fc2', 'fc') if hasattr(model.get_submodule(name), layer))}"
        for name in auxiliary_head_names(model)
    )
    return (head, *auxiliary)


def num_outputs(model: nn.Module) -> int:
    """Return the number of outputs of a classifier; 0 for an image encoder without a head."""
    if is_headless(model):
        return 0
    return int(cast("torch.Tensor", head_module(model)[1].weight).shape[0])


def num_features(model: nn.Module) -> int:
    """Return the number of inputs of the classifier layer."""
    return int(cast("torch.Tensor", head_module(model)[1].weight).shape[1])
