"""Number of input channels of a network, and first convolutions adapted to another number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ...pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

RGB = 3


def input_convolutions(model: nn.Module) -> tuple[str, ...]:
    """List the convolutions that read the image: those that timm names, otherwise the first one of the network.

    Empty for a network that begins otherwise, for example by moving pixels to channels.
    """
    from torch import nn

    modules = dict(model.named_modules())
    config = getattr(model, "pretrained_cfg", None)
    if config is None:
        return tuple(name for name, module in modules.items() if isinstance(module, nn.Conv2d))[:1]
    named = config.get("first_conv") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    convolutions = [modules.get(name) for name in names]
    num_channels = num_input_channels(model)
    fits = all(isinstance(each, nn.Conv2d) and each.in_channels == num_channels for each in convolutions)
    return names if fits else ()


def num_input_channels(model: nn.Module) -> int:
    """Return the number of image channels that a network reads: timm states it, otherwise its first convolution shows it."""
    config = getattr(model, "pretrained_cfg", None)
    if config is not None:
        return int(config.get("input_size", (RGB,))[0])
    names = input_convolutions(model)
    return int(_convolution(model, names[0]).in_channels) if names else RGB


def set_input_channels(model: nn.Module, num_channels: int) -> None:
    """Adapt the first convolutions of an RGB network in place to another number of channels, as timm does.

    For one channel the weights are summed over RGB: a gray image gives the output of the same image repeated to three
    channels. For more channels the weights are repeated in turn and scaled by ``3 / num_channels``.

    Raises:
        ModelError: the network does not begin with convolutions over three channels.
    """
    import torch

    names = input_convolutions(model)
    convolutions = [_convolution(model, name) for name in names]
    if not convolutions or any(each.in_channels != RGB or each.groups != 1 for each in convolutions):
        got = ", ".join(
            f"{name} of {each.in_channels}" for name, each in zip(names, convolutions, strict=True)
        )
        raise ModelError(
            f"in_channels: expected a network that begins with a convolution of {RGB} channels, got "
            f"{type(model).__name__} with {got or 'none'}; remove in_channels, and repeat gray images to {RGB} channels"
        )
    for each in convolutions:
        each.weight = torch.nn.Parameter(
            adapt_weight(each.weight.detach(), num_channels), requires_grad=each.weight.requires_grad
        )
        each.in_channels = num_channels
    config = getattr(model, "pretrained_cfg", None)
    if config is not None:
        cast("Any", model).pretrained_cfg = {
            **config,
            "input_size": (num_channels, *config.get("input_size", (RGB,))[1:]),
        }


def adapt_weight(weight_oihw: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Convert the weight of a convolution over RGB to another number of channels."""
    if num_channels == 1:
        return weight_oihw.sum(1, keepdim=True)
    turns = -(-num_channels // RGB)
    return weight_oihw.repeat(1, turns, 1, 1)[:, :num_channels] * (RGB / num_channels)


def _convolution(model: nn.Module, name: str) -> nn.Conv2d:
    return cast("nn.Conv2d", model.get_submodule(name))
