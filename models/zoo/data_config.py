"""Expected input of pretrained weights, and the ImageNet class names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import ModelError
from .hubs import WITH_AUXILIARY_HEADS, find_model

if TYPE_CHECKING:
    from .build import ModelSpec


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Preprocessing that the pretrained weights of a classifier expect."""

    mean: tuple[float, ...]
    """Per channel, for images scaled to 0..1."""
    std: tuple[float, ...]
    size: tuple[int, int]
    """Input height and width in pixels."""
    crop: float
    """Crop size as a fraction of the resized short side, 0..1 (timm's ``crop_pct``)."""
    interpolation: str
    """``bilinear`` or ``bicubic``."""
    crop_mode: str = "center"
    """``center``: resize the short side and crop the centre; ``squash``: resize both sides."""


def data_config(spec: ModelSpec) -> DataConfig:
    """Return the preprocessing that a model's pretrained weights expect, without loading them.

    For another number of input channels than three, every channel has the average mean and standard deviation of RGB;
    torchvision's GoogLeNet and Inception v3 then read images in -1..1, as they no longer renormalise their input.

    Raises:
        ModelError: the model does not exist, or timm has no configuration for it.
    """
    hub, name = find_model(spec.name)
    config = _timm_config(spec, name) if hub == "timm" else _torchvision_config(name)
    if spec.in_channels in (None, len(config.mean)):
        return config
    rescales = hub == "torchvision" and name in WITH_AUXILIARY_HEADS
    mean, std = (0.5 if rescales else sum(values) / len(values) for values in (config.mean, config.std))
    num = spec.in_channels or 1
    return replace(config, mean=(round(mean, 4),) * num, std=(round(std, 4),) * num)


def _timm_config(spec: ModelSpec, name: str) -> DataConfig:
    import timm

    published = timm.get_pretrained_cfg(name)
    if published is None:
        raise ModelError(
            f"model: expected a model for which timm has a preprocessing configuration, got {spec.name!r}; choose another"
        )
    config = cast("Any", timm.data).resolve_data_config(pretrained_cfg=asdict(published))
    return DataConfig(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        size=tuple(config["input_size"][1:]),
        crop=float(config["crop_pct"]),
        interpolation=str(config["interpolation"]),
        crop_mode=str(config["crop_mode"]),
    )


def _torchvision_config(name: str) -> DataConfig:
    import torchvision

    how = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return DataConfig(
        mean=tuple(how.mean),
        std=tuple(how.std),
        size=(how.crop_size[0], how.crop_size[0]),
        crop=how.crop_size[0] / how.resize_size[0],
        interpolation=str(how.interpolation.value),
    )


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of the 1,000 ImageNet classes in the order of torchvision's and timm's models."""
    import torchvision

    return tuple(torchvision.models.get_model_weights("resnet50").DEFAULT.meta["categories"])
