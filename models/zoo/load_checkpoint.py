"""Load a checkpoint of any trainer into a network, with a report of loaded and missing entries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.config.path_fields import MayBePath
from ...pipeline.errors import ModelError, did_you_mean
from ...pipeline.jobs.fingerprint import file_digest
from .checkpoint_file import SUFFIXES, read_checkpoint_file
from .heads import classifier_layers, num_outputs, reset_head
from .hubs import AUXILIARY_PREFIXES
from .state_dict import find_weights
from .weights import convert_efficientnet_keys, is_efficientnet_pytorch, load_strict, package_checkpoint
from .weights_report import WeightsReport

if TYPE_CHECKING:
    import torch
    from torch import nn

    StateDict = dict[str, torch.Tensor]

_PUBLISHED_WITH_TRANSFORM = ("1378be20", "0cc3c7bd")
"""SHA-256 prefixes of torchvision's weights of GoogLeNet and Inception v3, as in their file names."""


def is_path(weights: str) -> bool:
    """Return whether ``weights`` of a model spec is a file path."""
    return MayBePath(SUFFIXES).is_path(weights)


def resolve_weights(weights: str) -> Path:
    """Return the checkpoint file that ``weights`` of a model spec refers to.

    Raises:
        ModelError: it is neither a path nor an installed package with a checkpoint.
    """
    if weights.startswith("package:"):
        return package_checkpoint(weights.removeprefix("package:"))
    if not is_path(weights):
        words = ("default", "none", "package:")
        raise ModelError(
            f"weights: expected default, none, package:NAME or a path ending in {', '.join(SUFFIXES)}, "
            f"got {weights!r}; {did_you_mean(weights, words) or 'check the spelling'}"
        )
    return Path(weights)


def load_checkpoint(
    model: nn.Module, path: Path, entry: str | None, num_classes: int | None
) -> tuple[WeightsReport, bool | None]:
    """Load a checkpoint into a randomly initialised network.

    The head is resized to the number of classes in the file. If the file has no head and ``num_classes`` is given, a new
    head is created.

    Returns:
        The weights report, and whether the weights were trained with ``transform_input``; None if unknown.

    Raises:
        ModelError: the file cannot be read or does not fit the network.
    """
    content = read_checkpoint_file(path)
    if isinstance(content, Mapping):
        content = _without_training_state(content)
    found = find_weights(content, model.state_dict().keys(), str(path), entry)
    state, left_over = dict(found.tensors), list(found.left_over)
    state = _convert_names(model, state)
    has_auxiliary = type(model).__name__ in ("GoogLeNet", "Inception3")
    if has_auxiliary:
        auxiliary = [key for key in state if key.startswith(AUXILIARY_PREFIXES)]
        left_over += auxiliary
        state = {key: value for key, value in state.items() if key not in set(auxiliary)}
    num_in_file = len(state)
    heads, new = classifier_layers(model), False
    held = [state[f"{head}.weight"] for head in heads if f"{head}.weight" in state]
    if held and held[0].ndim and held[0].shape[0] != num_outputs(model):
        reset_head(model, held[0].shape[0])
    elif not held and num_classes is not None:
        if num_classes != num_outputs(model):
            reset_head(model, num_classes)
        state |= {key: value for key, value in model.state_dict().items() if key.startswith(_prefixes(heads))}
        new = True
    missing = tuple(key for key in model.state_dict() if key not in state)
    load_strict(model, state, str(path))
    report = WeightsReport(
        path.name, num_in_file, missing, tuple(left_over), (), found.entry, found.other_entries, found.prefix
    )
    if new:
        named = " and ".join(heads)
        report = replace(
            report, missing=(*missing, *(key for key in state if key.startswith(_prefixes(heads))))
        )
        report = report.with_new_layers(
            heads, f"the file has no head {named!r}: new head of {num_classes} classes"
        )
    return report, _recorded_transform(path) if has_auxiliary else None


def _prefixes(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def _without_training_state(content: Mapping[str, object]) -> Mapping[str, object]:
    """Remove the optimizer state and progress that Lightwell's own checkpoints hold."""
    return {
        key: value for key, value in content.items() if not re.match(r"(optimizer\.\d+|progress)\.", str(key))
    }


def _convert_names(model: nn.Module, state: StateDict) -> StateDict:
    """Rename tensors of the package efficientnet-pytorch to timm's names."""
    stem = next((key for key in state if key.endswith("_conv_stem.weight")), "")
    prefix = stem.removesuffix("_conv_stem.weight")
    plain = {key.removeprefix(prefix): value for key, value in state.items()}
    if not is_efficientnet_pytorch(plain):
        return state
    stages = getattr(model, "blocks", ())
    return convert_efficientnet_keys(plain, [len(list(stage.children())) for stage in stages])


def _recorded_transform(path: Path) -> bool | None:
    """Return whether weights of GoogLeNet or Inception were trained with ``transform_input``; None if unknown.

    It is enabled in torchvision's files. Lightwell's checkpoints record it; those without a record had it enabled.
    """
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        if metadata.get("format") == "lightwell":
            return '"transform_input":false' not in metadata.get("model", "")
        return None
    return True if file_digest(path).startswith(_PUBLISHED_WITH_TRANSFORM) else None
