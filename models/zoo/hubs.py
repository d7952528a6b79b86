"""Model hubs torchvision and timm: look up names, build networks, download pretrained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import ModelError, did_you_mean
from ...pipeline.warning_filter import ignored_warnings
from .weights import is_reachable

if TYPE_CHECKING:
    from torch import nn

HUBS = ("torchvision", "timm")
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""torchvision's networks with auxiliary heads in training and the option ``transform_input``."""
UNTRAINED_AUXILIARY = "the auxiliary heads of torchvision's GoogLeNet weights are untrained"
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


def find_model(name: str) -> tuple[str, str]:
    """Split the name of a model into hub and name in the hub.

    Raises:
        ModelError: no such model; the message lists the closest matches.
    """
    import torchvision

    prefix, _, bare = name.rpartition(":")
    hubs = (prefix,) if prefix else HUBS
    if prefix and prefix not in HUBS:
        raise ModelError(
            f"model: expected a prefix of {' or '.join(HUBS)}, got {name!r}; {did_you_mean(prefix, HUBS)}"
        )
    torchvision_names = set(torchvision.models.list_models(module=torchvision.models))
    if "torchvision" in hubs and bare in torchvision_names:
        return "torchvision", bare
    import timm

    if "timm" in hubs and timm.is_model(bare):
        tags = [full for full in timm.list_pretrained() if full.partition(".")[0] == bare.partition(".")[0]]
        if "." in bare and bare not in tags:
            raise ModelError(
                f"model: expected one of timm's {', '.join(tags) or 'names'}, got {name!r}; "
                "choose one, or remove the tag"
            )
        return "timm", bare
    known = {"torchvision": sorted(torchvision_names), "timm": timm.list_models()}
    near = did_you_mean(bare, (each for hub in hubs for each in known[hub]))
    raise ModelError(
        f"model: expected a classifier of {' or '.join(hubs)}, got {name!r}; "
        f"{near or 'see torchvision.models.list_models() and timm.list_models()'}"
    )


def build_untrained(hub: str, name: str, *, auxiliary_heads: bool = False) -> nn.Module:
    """Build a network, randomly initialised with torch's global generator.

    Raises:
        ModelError: ``auxiliary_heads`` is requested of a network that has none.
    """
    if auxiliary_heads:
        _check_has_auxiliary_heads(hub, name)
    if hub == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    import torchvision

    options: dict[str, Any] = {}
    if name in WITH_AUXILIARY_HEADS:
        options = {"aux_logits": auxiliary_heads, "init_weights": True}
    elif name.startswith("vit_"):  # its position embeddings fit one size, that of the weights
        options = {"image_size": torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"][0]}
    model = torchvision.models.get_model(name, weights=None, **options)
    return cast("nn.Module", model)


def _check_has_auxiliary_heads(hub: str, name: str) -> None:
    if hub != "torchvision" or name not in WITH_AUXILIARY_HEADS:
        raise ModelError(
            f"auxiliary_heads: expected torchvision's {' or '.join(WITH_AUXILIARY_HEADS)}, got {name!r} of {hub}, "
            "which has none; remove auxiliary_heads"
        )


def build_on_meta(hub: str, name: str, *, auxiliary_heads: bool = False) -> nn.Module:
    """Build a network on torch's meta device: shapes without values.

    Constructors may read small tensors, such as rates per layer, so only the memory of layers, ``torch.empty``, is left
    out while they run. Those that run a part of the network are built on the meta device altogether.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class EmptyOnMeta(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            options = kwargs or {}
            if func is torch.empty and options.get("device") is None:
                options = {**options, "device": "meta"}
            return func(*args, **options)

    for without_values in (EmptyOnMeta(), torch.device("meta")):
        try:
            with without_values:
                return build_untrained(hub, name, auxiliary_heads=auxiliary_heads).to("meta")
        except (NotImplementedError, RuntimeError):
            continue
    return build_untrained(hub, name, auxiliary_heads=auxiliary_heads).to("meta")


def build_pretrained(hub: str, name: str, *, auxiliary_heads: bool = False) -> nn.Module:
    """Build a network with the hub's pretrained weights, cached or downloaded; fails fast without either.

    Raises:
        ModelError: the weights are not cached and cannot be downloaded.
    """
    if auxiliary_heads:
        _check_has_auxiliary_heads(hub, name)
    try:
        return (
            _fetch_timm(name) if hub == "timm" else _fetch_torchvision(name, auxiliary_heads=auxiliary_heads)
        )
    except OSError as error:
        raise ModelError(
            f"weights: expected the {hub} weights of {name!r}, got no network and no cached copy; "
            "give a path, package:NAME, or write weights: none"
        ) from error


def _fetch_torchvision(name: str, *, auxiliary_heads: bool) -> nn.Module:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not cached.is_file() and not is_reachable(weights.url):
        raise ConnectionError(weights.url)
    options = {"aux_logits": True} if name in WITH_AUXILIARY_HEADS and auxiliary_heads else {}
    with ignored_warnings():  # that GoogLeNet's auxiliary heads are untrained: the weights report says so
        model = torchvision.models.get_model(name, weights=weights, progress=False, **options)
    if name == "inception_v3" and not auxiliary_heads:  # torchvision keeps this head with pretrained weights
        model.aux_logits, model.AuxLogits = False, None
    return cast("nn.Module", model)


def _fetch_timm(name: str) -> nn.Module:
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(
            f"weights: expected the timm weights of {name!r}, got a model without pretrained weights; "
            "give a path, package:NAME, or write weights: none"
        )
    with offline_if_unreachable():
        return timm.create_model(name, pretrained=True)


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Put the Hugging Face client into offline mode if its server is unreachable.

    Otherwise it retries for most of a minute before it uses its cache.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
