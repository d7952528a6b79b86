"""Class names of pretrained weights."""

from __future__ import annotations

from typing import Any, cast

from .build import ModelSpec
from .hubs import find_model

NUM_IMAGENET = 1000


def pretrained_class_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return the class names of a hub's pretrained weights; empty for other weights and for a new head.

    torchvision stores them with its weights; for timm they are known for its labelled datasets and ImageNet-1k.
    """
    if spec.weights != "default":
        return ()
    hub, name = find_model(spec.name)
    if hub == "torchvision":
        import torchvision

        names = tuple(torchvision.models.get_model_weights(name).DEFAULT.meta.get("categories", ()))
    else:
        names = _timm_classes(name)
    return names if spec.num_classes in (None, len(names)) else ()


def _timm_classes(name: str) -> tuple[str, ...]:
    import timm

    from .build import imagenet_classes

    config = timm.get_pretrained_cfg(name)
    if config is None or config.num_classes != NUM_IMAGENET:
        return ()
    label_names: Any = cast("Any", config).label_names
    tag = str(config.tag or "")
    return tuple(label_names) if label_names else imagenet_classes() if tag.endswith("in1k") else ()
