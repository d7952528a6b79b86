"""Segmentation networks by name: the U-Net of 2015, and U-Net or FPN with an encoder of segmentation-models-pytorch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.config.path_fields import MayBePath
from ...pipeline.errors import ModelError, did_you_mean
from .checkpoint_file import SUFFIXES
from .hubs import offline_if_unreachable
from .load_checkpoint import is_path, load_trunk
from .weights_report import WeightsReport, attach_report

if TYPE_CHECKING:
    from torch import nn

TIMM_PREFIX = "tu-"
"""Encoders of timm have this prefix, as in segmentation-models-pytorch."""


class SegmentationSpec(CheckedModel):
    """Name, encoder and weights of a segmentation network."""

    name: Literal["unet", "fpn"]
    """``unet`` without an encoder is the U-Net of 2015, which learns from scratch."""
    encoder: str | None = None
    """An encoder of segmentation-models-pytorch, such as ``resnet34``, ``mobilenet_v2`` or ``tu-convnext_tiny`` of timm."""
    encoder_weights: Annotated[str | None, MayBePath(SUFFIXES)] = None
    """``default`` (ImageNet, downloaded; also without this key), the path of a checkpoint whose trunk has the encoder's names,
    or ``none``."""
    width: int = Field(default=64, ge=1)
    """Only without an encoder: channels of the first level."""
    padding: Literal["same", "valid"] = "same"
    """Only without an encoder: ``valid`` convolutions as published, on images whose borders are mirrored; or ``same``."""
    num_classes: int | None = Field(default=None, ge=1)
    """Set by training; leave it out."""

    @model_validator(mode="after")
    def _check_encoder(self) -> Self:
        if self.encoder is None and self.name == "fpn":
            raise ValueError(
                "encoder: expected one for an fpn, got none; write, for example, encoder: resnet34"
            )
        if self.encoder is None and self.encoder_weights not in (None, "none"):
            raise ValueError(
                "encoder_weights: expected an encoder beside it, got none; write, for example, encoder: resnet34"
            )
        if self.encoder is not None and "width" in self.model_fields_set and self.width != 64:
            raise ValueError("width: expected no encoder beside it, got one, which has its own; remove width")
        if self.encoder is not None and self.padding != "same":
            raise ValueError(
                "padding: expected no encoder beside it, got one, which has its own; remove padding"
            )
        return self

    @property
    def weights(self) -> str:
        """Weights that a run starts from, in the words of ``ModelSpec``."""
        return "none" if self.encoder is None else self.encoder_weights or "default"


def build_segmentation_model(spec: SegmentationSpec, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Build a segmentation network on the CPU, in eval mode; the state of torch's global generator is restored.

    Args:
        spec: network and weights.
        num_classes: output channels.
        seed: of the random initialisation.

    Raises:
        ModelError: segmentation-models-pytorch is missing or has no such encoder, or the weights do not fit or cannot be
            downloaded.
    """
    import torch

    from .unet import UNet

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if spec.encoder is None:
            model: nn.Module = UNet(num_classes, width=spec.width, padding=spec.padding)
            attach_report(model, WeightsReport("none", untrained=("down", "up", "merge", "head")))
        else:
            model = _build_with_encoder(spec, spec.encoder, num_classes)
    return model.eval()


def stride_of(model: nn.Module) -> int:
    """Return the number of which height and width of a network's images have to be multiples."""
    from .unet import STRIDE, UNet

    if isinstance(model, UNet):
        return STRIDE if model.padding == "same" else 1
    return int(cast("Any", model).encoder.output_stride)


def head_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the layers that are not the encoder's; all layers without an encoder."""
    return tuple(name for name, _ in model.named_children() if name != "encoder")


def _build_with_encoder(spec: SegmentationSpec, encoder: str, num_classes: int) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ModelError(
            "model: expected segmentation-models-pytorch for a network with an encoder, got none installed; run: "
            "pip install 'lightwell[segmentation]'"
        ) from error
    kind = {"unet": smp.Unet, "fpn": smp.FPN}[spec.name]
    known = smp.encoders.get_encoder_names()
    if not encoder.startswith(TIMM_PREFIX) and encoder not in known:
        raise ModelError(
            f"encoder: expected one of segmentation-models-pytorch, or of timm as {TIMM_PREFIX}NAME, got {encoder!r}; "
            f"{did_you_mean(encoder, known) or 'its documentation lists them'}"
        )
    pretrained: Any = None
    if spec.weights == "default":
        pretrained = True if encoder.startswith(TIMM_PREFIX) else "imagenet"
    fetching = nullcontext() if pretrained is None else offline_if_unreachable()
    try:
        with fetching:
            model: Any = kind(encoder, encoder_weights=pretrained, in_channels=3, classes=num_classes)
    except OSError as error:
        raise ModelError(
            f"encoder_weights: expected the ImageNet weights of {encoder!r}, got no network and no cached copy; write the path of "
            "a file, or none"
        ) from error
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"encoder: expected {encoder!r} with {spec.weights} weights, got {type(error).__name__} ({reason}); "
            "check the name, or write encoder_weights: none or the path of a file"
        ) from error
    rest = ("decoder", "segmentation_head")
    if pretrained is not None:
        report = WeightsReport(
            f"ImageNet weights of {encoder}", len(model.encoder.state_dict()), untrained=rest
        )
    elif is_path(spec.weights):
        trunk = model.encoder.model if encoder.startswith(TIMM_PREFIX) else model.encoder
        report = load_trunk(trunk, Path(spec.weights)).with_new_layers(rest)
    elif spec.weights == "none":
        report = WeightsReport("none", untrained=("encoder", *rest))
    else:
        raise ModelError(
            f"encoder_weights: expected default, none or a path ending in {', '.join(SUFFIXES)}, got "
            f"{spec.weights!r}; correct it"
        )
    # ``heads.head_module`` reads the name of the last layer here, as in timm's models.
    model.pretrained_cfg = {"classifier": "segmentation_head.0"}
    attach_report(model, report)
    built: nn.Module = model
    return built
