"""How the published weights of a classifier expect their images, and their classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import ModelError
from .hubs import find_model

if TYPE_CHECKING:
    from .build import ModelSpec


@dataclass(frozen=True, slots=True)
class DataConfig:
    """How the published weights of a classifier expect their images."""

    mean: tuple[float, ...]
    """Per channel, on the scale 0..1."""
    std: tuple[float, ...]
    size: tuple[int, int]
    """Height and width in pixels that the model sees."""
    crop: float
    """Share of the resized short side that the centre crop keeps, 0..1."""
    interpolation: str
    """``bilinear`` or ``bicubic``."""
    crop_mode: str = "center"
    """``center``: the short side is resized and the middle kept; ``squash``: both sides are resized."""


def data_config(spec: ModelSpec) -> DataConfig:
    """Return how the published weights of a model expect their images; touches neither weights nor network.

    Raises:
        ModelError: no such model, or one of which timm says nothing.
    """
    hub, name = find_model(spec.name)
    if hub == "timm":
        import timm

        published = timm.get_pretrained_cfg(name)
        if published is None:
            raise ModelError(
                f"model: expected a model of which timm says how its images are prepared, got {spec.name!r}; choose another"
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
    """Name the 1,000 ImageNet classes in the order that torchvision's and timm's models share."""
    import torchvision

    return tuple(torchvision.models.get_model_weights("resnet50").DEFAULT.meta["categories"])
