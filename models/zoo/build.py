"""Build classifiers from torchvision and timm by name, with weights from a hub, a file or an installed package.

``torchvision:NAME`` and ``timm:NAME`` select the hub. A name without prefix is looked up in torchvision first, then in
timm: ``resnet18`` is torchvision's, while ``tf_efficientnet_lite0``, ``resnet18.a1_in1k`` (a timm name with a tag) and
``timm:resnet18`` are timm's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.config.path_fields import MayBePath
from ...pipeline.errors import ModelError
from .channels import RGB, input_convolutions, num_input_channels, set_input_channels
from .checkpoint_file import SUFFIXES
from .data_config import DataConfig, data_config, imagenet_classes
from .heads import (
    auxiliary_head_names,
    classifier_layers,
    head_module,
    head_names,
    is_projection,
    num_outputs,
    reset_head,
)
from .hubs import UNTRAINED_AUXILIARY, WITH_AUXILIARY_HEADS, build_pretrained, build_untrained, find_model
from .load_checkpoint import is_path, load_checkpoint, resolve_weights
from .weights_report import WeightsReport, attach_report, weights_report

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "DataConfig",
    "ModelSpec",
    "WeightsReport",
    "build_model",
    "data_config",
    "head_module",
    "head_names",
    "imagenet_classes",
    "reset_head",
    "weights_report",
]

_log = logging.getLogger(__name__)


class ModelSpec(CheckedModel):
    """Name and weights of a classifier."""

    name: str
    """Name of a torchvision or timm classifier, such as ``resnet18``, ``timm:resnet18`` or ``tf_efficientnet_lite0``."""
    weights: Annotated[str, MayBePath(SUFFIXES)] = "default"
    """``default`` (pretrained weights of the hub), the path of a checkpoint, ``package:NAME`` (a checkpoint inside an
    installed package), or ``none`` (random initialisation). In a job file, paths are relative to the file's folder."""
    weights_entry: str | None = None
    """Entry of the checkpoint that holds the weights, such as ``state_dict`` or ``model_ema``. None selects averaged
    (EMA) weights if there are any, else the usual entry."""
    transform_input: bool | None = None
    """Only for torchvision's GoogLeNet and Inception v3: renormalise ImageNet-normalised images to -1..1 first. None
    enables it for torchvision's pretrained weights, which were trained with it, and disables it otherwise, as torchvision
    does."""
    auxiliary_heads: bool = False
    """Only for torchvision's GoogLeNet and Inception v3: build the auxiliary heads, whose losses are added in training."""
    in_channels: int | None = Field(default=None, ge=1)
    """Number of channels of the images, such as 1 for gray. Pretrained weights of the first convolution are adapted: summed
    for one channel, otherwise repeated in turn. None keeps that of the weights, usually 3."""
    num_classes: int | None = Field(default=None, ge=1)
    """None keeps the number of classes of the weights; a different number creates a new head."""


def build_model(
    spec: ModelSpec, num_classes: int | None = None, *, seed: int = 0, warn: bool = True
) -> nn.Module:
    """Build a classifier on the CPU, in eval mode.

    ``weights_report`` of the model lists the loaded and the randomly initialised layers. An image encoder without a head
    gets one if the number of classes is given. The state of torch's global generator is restored.

    Args:
        spec: model and weights.
        num_classes: number of classes of the data, if the spec does not set it.
        seed: seed of the random initialisation of new layers.
        warn: log a warning for a new head; False for callers that show the report themselves.

    Raises:
        ModelError: the model or its weights do not exist, do not fit, or cannot be downloaded.
    """
    if num_classes is not None and spec.num_classes not in (None, num_classes):
        raise ModelError(
            f"model {spec.name!r}: expected num_classes of the data, {num_classes}, got "
            f"{spec.num_classes}; leave num_classes out of the model or make it match"
        )
    import torch

    num_wanted = spec.num_classes if num_classes is None else num_classes
    hub, name = find_model(spec.name)
    if spec.weights_entry is not None and not (is_path(spec.weights) or spec.weights.startswith("package:")):
        raise ModelError(
            f"weights_entry: expected weights from a file, got weights: {spec.weights}; remove weights_entry"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model, report = _build(spec, hub, name, num_wanted)
    if warn and report.untrained and spec.weights != "none":
        _log.warning("%s", report.line())
    attach_report(model, report)
    return model.eval()


def _build(spec: ModelSpec, hub: str, name: str, num_wanted: int | None) -> tuple[nn.Module, WeightsReport]:
    """Build the network, load its weights and replace the head if the number of classes differs."""
    transforms: bool | None = None
    auxiliary = spec.auxiliary_heads
    if spec.weights == "default":
        model, transforms = build_pretrained(hub, name, auxiliary_heads=auxiliary), True
        report = WeightsReport(f"{hub} weights of {name}", num_loaded=len(model.state_dict()))
        if auxiliary and name == "googlenet":
            report = report.with_new_layers(auxiliary_head_names(model), UNTRAINED_AUXILIARY)
    elif spec.weights == "none":
        model = build_untrained(hub, name, auxiliary_heads=auxiliary)
        layers = tuple(
            part for part, child in model.named_children() if any(True for _ in child.parameters())
        )
        report = WeightsReport("none", untrained=layers)
    else:
        path = resolve_weights(spec.weights)
        model = build_untrained(hub, name, auxiliary_heads=auxiliary)
        report, transforms = load_checkpoint(model, path, spec.weights_entry, num_wanted)
    projects = spec.weights == "default" and is_projection(model)
    if num_wanted is not None and (projects or num_wanted != num_outputs(model)):
        num_before = num_outputs(model)
        reset_head(model, num_wanted)
        heads = classifier_layers(model)
        before = f"in place of {num_before}" if num_before else "on an image encoder without one"
        before = f"in place of a projection to {num_before} values" if projects else before
        report = (
            report.with_new_layers(heads)
            if spec.weights == "none"
            else report.with_new_layers(heads, f"new head of {num_wanted} classes {before}")
        )
    report = _set_channels(spec, model, report)
    return model, _set_transform_input(spec, model, hub, name, report, recorded=transforms)


def _set_channels(spec: ModelSpec, model: nn.Module, report: WeightsReport) -> WeightsReport:
    """Adapt the first convolution to the number of channels of the spec, and add a note to the report."""
    wanted, got = spec.in_channels, num_input_channels(model)
    if wanted is None or wanted == got:
        return report
    if got != RGB:
        raise ModelError(
            f"in_channels: expected {got}, the number of channels of the weights from {report.source}, got {wanted}; "
            "remove in_channels, or use weights for RGB images"
        )
    set_input_channels(model, wanted)
    if spec.weights == "none":
        return report
    names = input_convolutions(model)
    how = "summed to one" if wanted == 1 else f"repeated to {wanted}"
    note = f"{RGB} input channels {how} in {' and '.join(names)}"
    if any("Std" in type(model.get_submodule(name)).__name__ for name in names):
        note += ", which standardises its weights, so that outputs differ from those for RGB: train from this block on"
    return report.with_note(note)


def _set_transform_input(
    spec: ModelSpec, model: nn.Module, hub: str, name: str, report: WeightsReport, *, recorded: bool | None
) -> WeightsReport:
    """Set whether the network renormalises its input, and add a note to the report if the setting is a guess.

    Args:
        spec: model spec; its ``transform_input`` takes precedence.
        model: changed in place.
        hub: hub of the network.
        name: name of the network in the hub.
        report: weights report.
        recorded: setting that the weights were trained with; None if unknown.
    """
    if hub != "torchvision" or name not in WITH_AUXILIARY_HEADS:
        if spec.transform_input is not None:
            raise ModelError(
                f"transform_input: expected torchvision's {' or '.join(WITH_AUXILIARY_HEADS)}, got {spec.name!r}, "
                "which has no such option; remove it"
            )
        return report
    requested = spec.transform_input
    if num_input_channels(model) != RGB:  # it renormalises RGB; ``data_config`` states what other images need
        if requested:
            raise ModelError(
                f"transform_input: expected images of {RGB} channels, got in_channels: {num_input_channels(model)}; "
                "remove transform_input"
            )
        requested = False
    cast("Any", model).transform_input = bool(recorded) if requested is None else requested
    if requested is not None or recorded is not None or spec.weights == "none":
        return report
    note = (
        "transform_input is off, as torchvision builds the network without weights; "
        "write transform_input: true if these weights were trained with it"
    )
    _log.info("%s: %s", report.source, note)
    return report.with_note(note)
