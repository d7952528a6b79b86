"""Load a checkpoint of any trainer into a network, with a report of loaded and missing entries."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.config.path_fields import MayBePath
from ...pipeline.errors import ModelError, did_you_mean
from ...pipeline.jobs.fingerprint import file_digest
from .channels import input_convolutions, num_input_channels, set_input_channels
from .checkpoint_file import SUFFIXES, read_checkpoint_file
from .freezing import blocks
from .heads import auxiliary_head_names, declared_heads, num_outputs, reset_head
from .hubs import AUXILIARY_PREFIXES, UNTRAINED_AUXILIARY
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

    Head and first convolution get the numbers of classes and channels in the file. If ``num_classes`` is given, layers
    that the file lacks are left randomly initialised: the head, and layers before it in the same part of the network, such
    as ``classifier`` of a VGG; so are auxiliary heads. Anything else that is missing is an error.

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
    state, converted = _convert_names(model, state)
    left_over += converted
    has_transform = type(model).__name__ in ("GoogLeNet", "Inception3")
    if has_transform and not auxiliary_head_names(model):
        auxiliary = [key for key in state if key.startswith(AUXILIARY_PREFIXES)]
        left_over += auxiliary
        state = {key: value for key, value in state.items() if key not in set(auxiliary)}
    num_in_file = len(state)
    _match_channels(model, state)
    _match_classes(model, state, num_classes)
    fresh = _fresh_layers(model, state, num_classes)
    missing = tuple(key for key in model.state_dict() if key not in state)
    state |= {key: value for key, value in model.state_dict().items() if key.startswith(_prefixes(fresh))}
    load_strict(model, state, str(path))
    report = WeightsReport(
        path.name,
        num_in_file,
        missing,
        tuple(left_over),
        entry=found.entry,
        other_entries=found.other_entries,
        prefix=found.prefix,
        added_prefix=found.added,
    )
    if fresh:
        new_head = f": new head of {num_classes} classes" if set(fresh) & set(declared_heads(model)) else ""
        named = f"{'head ' if new_head and len(fresh) == 1 else ''}{', '.join(map(repr, fresh))}"
        report = report.with_new_layers(fresh, f"the file has no {named}{new_head}")
    recorded = _recorded_transform(path) if has_transform else None
    if recorded and "aux1" in auxiliary_head_names(model) and path.suffix != ".safetensors":
        report = report.with_new_layers(auxiliary_head_names(model), UNTRAINED_AUXILIARY)
    return report, recorded


def load_trunk(trunk: nn.Module, path: Path) -> WeightsReport:
    """Load a checkpoint into a network without head; what else the file holds, such as a classifier, is left over.

    Raises:
        ModelError: the file cannot be read, or lacks a tensor of the network.
    """
    content = read_checkpoint_file(path)
    if isinstance(content, Mapping):
        content = _without_training_state(content)
    found = find_weights(content, trunk.state_dict().keys(), str(path), None)
    converted, _ = _convert_names(trunk, dict(found.tensors))
    names = trunk.state_dict().keys()
    state = {name: tensor for name, tensor in converted.items() if name in names}
    load_strict(trunk, state, str(path))
    left_over = (*found.left_over, *(name for name in converted if name not in names))
    return WeightsReport(
        path.name, len(state), (), left_over, (), found.entry, found.other_entries, found.prefix, found.added
    )


def _match_channels(model: nn.Module, state: StateDict) -> None:
    """Give the first convolution the number of channels in the file; its values are loaded afterwards."""
    for name in input_convolutions(model)[:1]:
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim == 4 and weight.shape[1] != num_input_channels(model):
            set_input_channels(model, int(weight.shape[1]))


def _match_classes(model: nn.Module, state: StateDict, num_classes: int | None) -> None:
    """Give the head the number of classes in the file, or the given one if the file has no head."""
    held = [state[f"{head}.weight"] for head in declared_heads(model) if f"{head}.weight" in state]
    wanted = int(held[0].shape[0]) if held and held[0].ndim else num_classes
    if wanted and wanted != num_outputs(model):
        reset_head(model, wanted)


def _fresh_layers(model: nn.Module, state: StateDict, num_classes: int | None) -> tuple[str, ...]:
    """List the layers that the file may lack, and does."""
    fresh = [name for name in auxiliary_head_names(model) if not _holds(state, name)]
    heads = declared_heads(model)
    if num_classes is None or any(_holds(state, head) for head in heads):
        return tuple(fresh)
    part = f"{heads[0].rpartition('.')[0]}."
    for name in reversed(blocks(model)):
        if _holds(state, name) or not (name in heads or name.startswith(part)):
            break
        fresh.insert(0, name)
    return (*fresh, *(name for name in heads if name not in fresh))


def _holds(state: StateDict, layer: str) -> bool:
    return any(key.startswith(f"{layer}.") for key in state)


def _prefixes(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def _without_training_state(content: Mapping[str, object]) -> Mapping[str, object]:
    """Remove the optimizer state and progress that Lightwell's own checkpoints hold."""
    return {
        key: value for key, value in content.items() if not re.match(r"(optimizer\.\d+|progress)\.", str(key))
    }


def _convert_names(model: nn.Module, state: StateDict) -> tuple[StateDict, list[str]]:
    """Rename tensors of other packages to the model's names.

    Names of the package efficientnet-pytorch are converted here, those of the publishers of timm's networks, such as DINOv2,
    by timm.

    Returns:
        The tensors, and the names of those that timm leaves out.
    """
    stem = next((key for key in state if key.endswith("_conv_stem.weight")), "")
    prefix = stem.removesuffix("_conv_stem.weight")
    plain = {key.removeprefix(prefix): value for key, value in state.items()}
    if is_efficientnet_pytorch(plain):
        stages = getattr(model, "blocks", ())
        return convert_efficientnet_keys(plain, [len(list(stage.children())) for stage in stages]), []
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    names = model.state_dict().keys()
    if convert is None or not hasattr(model, "pretrained_cfg") or not state.keys() - names:
        return state, []
    try:
        converted: StateDict = dict(convert(dict(state), model))
    except Exception:  # written for the files that timm publishes; others raise arbitrary exceptions
        return state, []
    if len(converted.keys() ^ names) >= len(state.keys() ^ names):
        return state, []
    kept = {value.untyped_storage().data_ptr() for value in converted.values()}
    return converted, [key for key, value in state.items() if value.untyped_storage().data_ptr() not in kept]


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
