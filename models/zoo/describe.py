"""Describe a network by name: parameters, expected input, blocks, head and target layer, without allocating its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...pipeline.errors import ModelError
from .build import ModelSpec
from .catalog import NamedNetwork, PublishedWeights, published_weights
from .channels import num_input_channels, set_input_channels
from .data_config import DataConfig, data_config
from .forward import expected_input_size
from .freezing import blocks
from .heads import auxiliary_head_names, classifier_layers, is_headless, num_features, num_outputs, reset_head
from .hubs import WITH_AUXILIARY_HEADS, build_on_meta, find_model
from .layers import last_map
from .map_layout import MapLayout

if TYPE_CHECKING:
    from torch import nn

DEFAULT_SIZE = 224, 224
MAX_COUNTED = 40
"""Maximum number of networks whose parameters are counted for a list; each is built on the meta device for that."""
MIN_SHARE = 0.01
"""Minimum share of the parameters in the block that ``suggested_block`` returns."""


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a network, or a parameter outside all blocks."""

    name: str
    num_parameters: int


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """Description of a classifier or image encoder."""

    name: str
    """Name as in a job file, such as ``resnet18`` or ``timm:resnet18``."""
    hub: str
    """``torchvision`` or ``timm``."""
    num_parameters: int
    in_channels: int
    input: DataConfig | None
    """Preprocessing that the pretrained weights expect; None if the hub does not state it."""
    blocks: tuple[Part, ...]
    """In order, the head last; ``fine_tune_from`` names one of them."""
    outside: tuple[Part, ...]
    """Parameters outside all blocks, such as class tokens and position embeddings."""
    heads: tuple[str, ...]
    """Classifier layers, the main one first."""
    num_features: int
    """Inputs of the classifier layer."""
    num_classes: int
    """Outputs of the classifier layer; 0 for an image encoder, which gets a new head of the data's classes."""
    auxiliary_heads: tuple[str, ...]
    """Auxiliary heads that the network was described with."""
    has_auxiliary_heads: bool
    """Whether the network can be built with auxiliary heads."""
    target_layer: str | None
    """Usual target layer of Grad-CAM at the expected input size; None if it cannot be determined."""
    grid: tuple[int, int] | None
    """Rows and columns of the target layer's map, or of its token grid."""
    num_prefix_tokens: int
    """Class and register tokens before the token grid."""
    weights: tuple[PublishedWeights, ...]
    """Published weights, the default first."""

    @property
    def suggested_block(self) -> str:
        """Last block before the head with a notable share of the parameters, a moderate choice of ``fine_tune_from``."""
        trunk = [part for part in self.blocks if part.name not in self.heads]
        large = [part for part in trunk if part.num_parameters >= MIN_SHARE * self.num_parameters]
        return (large or trunk or list(self.blocks))[-1].name


def describe(spec: ModelSpec) -> NetworkInfo:
    """Describe the network of a model spec, built on torch's meta device; no weights are read.

    Raises:
        ModelError: no such model, or it does not have the options of the spec.
    """
    hub, name = find_model(spec.name)
    model = build_without_values(spec)
    published, num_parameters = num_outputs(model), _count(model)
    if is_headless(model):
        reset_head(model, 1)
    heads = classifier_layers(model)
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}  # shared ones once
    if not published:  # the new head is not part of what is published
        for head in heads:
            _pop_size(sizes, head)
    parts = tuple(Part(block, _pop_size(sizes, block)) for block in blocks(model))
    outside = tuple(Part(key, size) for key, size in sizes.items())
    config = data_config(spec) if _has_config(hub, name) else None
    size = config.size if config else expected_input_size(model) or DEFAULT_SIZE
    target = _last_map(model, size)
    return NetworkInfo(
        name=spec.name,
        hub=hub,
        num_parameters=num_parameters,
        in_channels=num_input_channels(model),
        input=config,
        blocks=parts,
        outside=outside,
        heads=heads,
        num_features=num_features(model),
        num_classes=published,
        auxiliary_heads=auxiliary_head_names(model),
        has_auxiliary_heads=hub == "torchvision" and name in WITH_AUXILIARY_HEADS,
        target_layer=target[0] if target else None,
        grid=(target[1].height, target[1].width) if target else None,
        num_prefix_tokens=target[1].num_prefix if target else 0,
        weights=published_weights(hub, name),
    )


def count_parameters(networks: Sequence[NamedNetwork]) -> list[NamedNetwork]:
    """Fill in the number of parameters where it is not published, in lists of at most ``MAX_COUNTED`` networks."""
    if len(networks) > MAX_COUNTED:
        return list(networks)
    return [
        network
        if network.num_parameters
        else replace(network, num_parameters=_count(build_without_values(ModelSpec(name=network.name))))
        for network in networks
    ]


def build_without_values(spec: ModelSpec) -> nn.Module:
    """Build the network of a model spec on torch's meta device, in eval mode; ``weights`` and ``transform_input`` are ignored.

    The state of torch's global generator is restored.

    Raises:
        ModelError: no such model, or it does not have the options of the spec.
    """
    import torch

    hub, name = find_model(spec.name)
    with torch.random.fork_rng(devices=[]):
        model = build_on_meta(hub, name, auxiliary_heads=spec.auxiliary_heads)
        if spec.num_classes is not None:
            reset_head(model, spec.num_classes)
    if spec.in_channels is not None and spec.in_channels != num_input_channels(model):
        set_input_channels(model, spec.in_channels)
    return model.eval()


def _pop_size(sizes: dict[str, int], block: str) -> int:
    """Remove the parameters of a block from the sizes, and return their sum."""
    return sum([sizes.pop(key) for key in tuple(sizes) if key.startswith(f"{block}.")])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_config(hub: str, name: str) -> bool:
    if hub == "torchvision":
        return True
    import timm

    return timm.get_pretrained_cfg(name) is not None


def _last_map(model: nn.Module, size: tuple[int, int]) -> tuple[str, MapLayout] | None:
    """Find the target layer on the meta device; None if the network needs values to run, or has no map."""
    import torch

    try:
        with torch.device("meta"):
            return last_map(model, torch.zeros(1, num_input_channels(model), *size))
    except (ModelError, NotImplementedError, RuntimeError):
        return None
