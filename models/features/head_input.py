"""Records the input of a network's classifier, one vector per image."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from ..zoo.heads import head_module


class HeadInput:
    """Context in which a network's forward passes leave the input of its classifier behind.

    Maps of a convolutional classifier are averaged over their positions, and tokens over their number.
    """

    def __init__(self, model: nn.Module) -> None:
        self._head = head_module(model)[1]
        self._found: list[torch.Tensor] = []

    def __enter__(self) -> Self:
        self._handle = self._head.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle.remove()

    def _record(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._found.append(arguments[0].detach())

    def take(self) -> torch.Tensor:
        """Return the features of the last forward pass, shape (N, D)."""
        found = self._found.pop()
        self._found.clear()
        return pooled(found, channels_first=isinstance(self._head, nn.Conv2d))


def pooled(features: torch.Tensor, *, channels_first: bool) -> torch.Tensor:
    """Average features over their positions.

    Args:
        features: (N, D), (N, D, H, W), (N, H, W, D) or (N, T, D).
        channels_first: whether maps have their channels before their positions.
    """
    if features.ndim == 2:
        return features
    return features.flatten(2).mean(dim=2) if channels_first else features.flatten(1, -2).mean(dim=1)
