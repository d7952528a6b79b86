"""Classifiers by name, from torchvision and timm, with weights from a hub, a file or an installed package.

How a name is looked up: ``torchvision:NAME`` and ``timm:NAME`` ask that hub alone; a bare name is
torchvision's where torchvision has a classifier of that name, else timm's. So ``resnet18`` is
torchvision's, while ``tf_efficientnet_lite0``, ``resnet18.a1_in1k`` (timm's name with a tag) and
``timm:resnet18`` are timm's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from ..pipeline.errors import ModelError, nearest
from ..pipeline.path_fields import MayBePath
from .weights import (
    SUFFIXES,
    efficientnet_keys,
    fit,
    is_efficientnet_pytorch,
    package_checkpoint,
    reachable,
    read_state_dict,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .weights import StateDict

_log = logging.getLogger(__name__)
_HUBS = ("torchvision", "timm")
_WITH_AUX = ("googlenet", "inception_v3")
_AUX_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


class ModelSpec(BaseModel):
    """Which classifier, and with which weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A torchvision or timm classifier: ``resnet18``, ``timm:resnet18`` or ``tf_efficientnet_lite0``."""
    weights: Annotated[str, MayBePath(SUFFIXES)] = "default"
    """``default`` (the hub's own), a path to .pth, .pt or .safetensors, ``package:NAME`` (a checkpoint
    inside
    an installed package), or ``none`` (random, which must be asked for by name)."""
    num_classes: int | None = Field(default=None, ge=1)
    """None takes the classes of the weights; a number that differs from theirs makes a new head."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """How the published weights of a classifier want their images."""

    mean: tuple[float, ...]
    """Per channel, on the scale 0..1."""
    std: tuple[float, ...]
    size: tuple[int, int]
    """Height and width in pixels that the model sees."""
    crop: float
    """Share of the resized short side that the centre crop keeps, 0..1."""
    interpolation: str
    """``bilinear`` or ``bicubic``."""


def build_model(spec: ModelSpec, num_classes: int | None = None) -> nn.Module:
    """Build a classifier on the CPU, in eval mode.

    GoogLeNet and Inception come without auxiliary heads and with ``transform_input`` on, whatever the
    weights, so they always take ImageNet-normalised images.

    Args:
        spec: what to build.
        num_classes: classes of the data, where the spec leaves them open.

    Raises:
        ModelError: no such model, no such weights, weights that do not fit, or no network to fetch them.
    """
    if num_classes is not None and spec.num_classes not in (None, num_classes):
        raise ModelError(
            f"model {spec.name!r}: wanted num_classes of the data, {num_classes}, got "
            f"{spec.num_classes}; leave num_classes out of the model or make it match"
        )
    wanted = spec.num_classes if num_classes is None else num_classes
    hub, name = _find(spec.name)
    if spec.weights == "default":
        model = _fetch(hub, name)
        _give_classes(model, wanted, f"the {hub} weights of {name}")
    elif spec.weights == "none":
        model = _untrained(hub, name)
        if wanted is not None and wanted != _num_classes(model):
            reset_head(model, wanted)
    else:
        path = _checkpoint_path(spec.weights)
        state = read_state_dict(path)
        model = _untrained(hub, name)
        _load(model, name, state, path, wanted)
    return model.eval()


def head_module(model: nn.Module) -> tuple[str, nn.Module]:
    """Find the classifier layer: its dotted name and the layer, a Linear or 1x1 convolution.

    It is the layer that timm names; elsewhere the last Linear, or the last Conv2d where there is no Linear.

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
        f"wanted a model with a Linear or Conv2d classifier, got {type(model).__name__} without one; "
        "use a classifier"
    )


def head_names(model: nn.Module) -> tuple[str, ...]:
    """List the classifier layers that timm names: two for distilled models, none for models not of timm."""
    from torch import nn

    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    modules = dict(model.named_modules())
    return tuple(name for name in names if isinstance(modules.get(name), nn.Linear | nn.Conv2d))


def reset_head(model: nn.Module, num_classes: int) -> None:
    """Replace the classifier layer by a new, randomly initialised one (torch's global generator), in place.

    Args:
        model: any classifier for which ``head_module`` finds a layer.
        num_classes: outputs of the new layer.

    Raises:
        ModelError: the model has no classifier layer, or num_classes is below 1.
    """
    from torch import nn

    if num_classes < 1:
        raise ModelError(f"num_classes: wanted at least 1, got {num_classes}; count the classes of the data")
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


def data_config(spec: ModelSpec) -> DataConfig:
    """Say how the published weights of a model want their images; touches neither weights nor network.

    Raises:
        ModelError: no such model.
    """
    hub, name = _find(spec.name)
    if hub == "timm":
        import timm

        published = timm.get_pretrained_cfg(name)
        assert published is not None, name
        config = cast("Any", timm.data).resolve_data_config(pretrained_cfg=asdict(published))
        return DataConfig(
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            size=tuple(config["input_size"][1:]),
            crop=float(config["crop_pct"]),
            interpolation=str(config["interpolation"]),
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


def _find(name: str) -> tuple[str, str]:
    """Split a model's name into hub and name there, or raise ModelError with the nearest names."""
    import timm
    import torchvision

    prefix, _, bare = name.rpartition(":")
    hubs = (prefix,) if prefix else _HUBS
    if prefix and prefix not in _HUBS:
        raise ModelError(
            f"model: wanted a prefix of {' or '.join(_HUBS)}, got {name!r}; {nearest(prefix, _HUBS)}"
        )
    ours = set(torchvision.models.list_models(module=torchvision.models))
    if "torchvision" in hubs and bare in ours:
        return "torchvision", bare
    if "timm" in hubs and timm.is_model(bare):
        tags = [full for full in timm.list_pretrained() if full.partition(".")[0] == bare.partition(".")[0]]
        if "." in bare and bare not in tags:
            raise ModelError(
                f"model: wanted one of timm's {', '.join(tags) or 'names'}, got {name!r}; "
                "choose one, or leave the tag out"
            )
        return "timm", bare
    known = {"torchvision": sorted(ours), "timm": timm.list_models()}
    near = nearest(bare, (each for hub in hubs for each in known[hub]))
    raise ModelError(
        f"model: wanted a classifier of {' or '.join(hubs)}, got {name!r}; "
        f"{near or 'see torchvision.models.list_models() and timm.list_models()'}"
    )


def _untrained(hub: str, name: str) -> nn.Module:
    if hub == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    import torchvision

    if name in _WITH_AUX:
        model = torchvision.models.get_model(
            name, weights=None, aux_logits=False, transform_input=True, init_weights=True
        )
    else:
        model = torchvision.models.get_model(name, weights=None)
    return cast("nn.Module", model)


def _fetch(hub: str, name: str) -> nn.Module:
    """Build with the hub's own weights, from its cache or the network, failing in seconds without both."""
    try:
        return _fetch_timm(name) if hub == "timm" else _fetch_torchvision(name)
    except OSError as error:
        raise ModelError(
            f"weights: wanted the {hub} weights of {name!r}, got no network and no cached copy; "
            "give a path, package:NAME, or write weights: none"
        ) from error


def _fetch_torchvision(name: str) -> nn.Module:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not cached.is_file() and not reachable(weights.url):
        raise ConnectionError(weights.url)
    model = torchvision.models.get_model(name, weights=weights, progress=False)
    if name == "inception_v3":  # torchvision keeps this net's auxiliary head beside pretrained weights
        model.aux_logits, model.AuxLogits = False, None
    return cast("nn.Module", model)


def _fetch_timm(name: str) -> nn.Module:
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(
            f"weights: wanted the timm weights of {name!r}, got a model that timm has none for; "
            "give a path, package:NAME, or write weights: none"
        )
    with _cache_alone_without_network():
        return timm.create_model(name, pretrained=True)


@contextmanager
def _cache_alone_without_network() -> Iterator[None]:
    """Put the Hugging Face client into its offline mode where its server does not answer.

    It would otherwise retry for most of a minute before it looks into its cache.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _checkpoint_path(weights: str) -> Path:
    if weights.startswith("package:"):
        return package_checkpoint(weights.removeprefix("package:"))
    if Path(weights).suffix not in SUFFIXES:
        words = ("default", "none", "package:")
        raise ModelError(
            f"weights: wanted default, none, package:NAME or a path ending in {', '.join(SUFFIXES)}, "
            f"got {weights!r}; {nearest(weights, words) or 'check the spelling'}"
        )
    return Path(weights)


def _load(model: nn.Module, name: str, state: StateDict, path: Path, wanted: int | None) -> None:
    """Load a checkpoint with the head it has, or with a new head where other classes are wanted."""
    if name in _WITH_AUX:
        state = {key: value for key, value in state.items() if not key.startswith(_AUX_PREFIXES)}
    if is_efficientnet_pytorch(state):
        stages = getattr(model, "blocks", ())
        state = efficientnet_keys(state, [len(list(stage.children())) for stage in stages])
    head, _ = head_module(model)
    held = state.get(f"{head}.weight")
    if held is not None and held.ndim >= 1 and held.shape[0] != _num_classes(model):
        reset_head(model, held.shape[0])
    if held is None and wanted is not None:
        reset_head(model, wanted)
        state |= {key: value for key, value in model.state_dict().items() if key.startswith(f"{head}.")}
        _log.warning("%s has no head %r: made a new one of %d classes", path.name, head, wanted)
    fit(model, state, str(path))
    _give_classes(model, wanted, path.name)


def _give_classes(model: nn.Module, wanted: int | None, source: str) -> None:
    if wanted is None or wanted == _num_classes(model):
        return
    _log.warning(
        "%s has %d classes: made a new head of %d, to be trained", source, _num_classes(model), wanted
    )
    reset_head(model, wanted)


def _num_classes(model: nn.Module) -> int:
    return int(cast("torch.Tensor", head_module(model)[1].weight).shape[0])
