"""Averaged outputs of several blocks of a network, computed in one forward pass."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from ...pipeline.errors import ModelError, did_you_mean
from ..zoo.freezing import blocks
from ..zoo.heads import head_module
from .head_input import HeadInput, pooled
from .weights_digest import weights_digest

HEAD_INPUT = "head"
"""Name of the features that the classifier gets."""


@dataclass(frozen=True)
class PooledBlocks:
    """A trunk for ``FeatureCache``: outputs of blocks, averaged over their positions, then the input of the classifier."""

    model: nn.Module
    names: tuple[str, ...]
    """Blocks of the network, as ``blocks`` lists them."""

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images, shape (N, D), those of all blocks one after another."""
        parts = self.parts(images)
        return torch.cat(list(parts.values()), dim=1)

    @torch.no_grad()
    def parts(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the features by name, ``HEAD_INPUT`` last."""
        found: dict[str, torch.Tensor] = {}

        def record(name: str, _: nn.Module, __: Any, output: Any) -> None:
            found[name] = _averaged(output)

        with ExitStack() as stack:
            for name in self.names:
                handle = self.model.get_submodule(name).register_forward_hook(partial(record, name))
                stack.callback(handle.remove)
            head_input = stack.enter_context(HeadInput(self.model))
            self.model(images)
            return {**{name: found[name] for name in self.names}, HEAD_INPUT: head_input.take()}

    def check(self, images: torch.Tensor) -> None:
        """Check nothing: the features are of the network itself."""

    @torch.no_grad()
    def ends_in_head(self, images: torch.Tensor) -> bool:
        """Return whether the network's output is its classifier's, a linear function of the averaged features."""
        head = head_module(self.model)[1]
        features = self.parts(images)[HEAD_INPUT]
        weight, bias = cast("torch.Tensor", head.weight), cast("torch.Tensor", head.bias)
        scores = torch.nn.functional.linear(features, weight.flatten(1), bias)
        output = self.model(images)
        return output.shape == scores.shape and torch.allclose(output, scores, rtol=1e-3, atol=1e-3)

    def digest(self) -> str:
        """Hash layers and weights of the network, and the names of the blocks."""
        return weights_digest(f"{self.model}\0{self.names}", self.model)


def check_blocks(model: nn.Module, names: tuple[str, ...]) -> None:
    """Check the names of blocks.

    Raises:
        ModelError: a network has no such block before its head.
    """
    known = blocks(model)[:-1]
    for name in names:
        if name not in known:
            raise ModelError(
                f"blocks: expected blocks of {type(model).__name__} before its head, got {name!r}; "
                f"{did_you_mean(name, known)} (blocks: {', '.join(known)})"
            )


def _averaged(output: Any) -> torch.Tensor:
    """Average the output of a block; maps are (N, H, W, D) where only these axes make them square."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    is_last = features.ndim == 4 and features.shape[1] == features.shape[2] != features.shape[3]
    return pooled(features.detach(), channels_first=features.ndim == 4 and not is_last)
