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
        ModelError: the model has no such layer.
    """
    from torch import nn

    for name in head_names(model):
        return name, model.get_submodule(name)
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

    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    modules = dict(model.named_modules())
    return tuple(name for name in names if isinstance(modules.get(name), nn.Linear | nn.Conv2d))


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Replace the classifier layer in place by a new one, randomly initialised with torch's global generator.

    Args:
        model: a classifier for which ``head_module`` finds a layer.
        num_classes: number of outputs of the new layer.

    Raises:
        ModelError: the model has no classifier layer, or num_classes is below 1.
    """
    from torch import nn

    if num_classes < 1:
        raise ModelError(
            f"num_classes: expected at least 1, got {num_classes}; count the classes of the data"
        )
    name, old = head_module(model)
    weight = cast("torch.Tensor", old.weight)
    if head_names(model) and hasattr(model, "reset_classifier"):
        cast("Any", model).reset_classifier(num_classes)
        model.to(device=weight.device, dtype=weight.dtype)
        return
    parent = model.get_submodule(name.rpartition(".")[0])
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(
            old.in_channels,
            num_classes,
            cast("Any", old.kernel_size),
            cast("Any", old.stride),
            cast("Any", old.padding),
            bias=old.bias is not None,
        )
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    setattr(
        parent, name.rpartition(".")[2], new.to(device=weight.device, dtype=weight.dtype).train(old.training)
    )
    if hasattr(model, "num_classes"):
        cast("Any", model).num_classes = num_classes


def classifier_layers(model: nn.Module) -> tuple[str, ...]:
    """List the names of all classifier layers; two for distilled models."""
    return head_names(model) or (head_module(model)[0],)


def num_outputs(model: nn.Module) -> int:
    """Return the number of outputs of a classifier."""
    return int(cast("torch.Tensor", head_module(model)[1].weight).shape[0])
