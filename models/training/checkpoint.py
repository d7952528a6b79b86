"""Checkpoints: weights, optimiser state and what they belong to, in safetensors files without pickle.

``best.safetensors`` holds the weights of the best epoch under their own names, so it also serves as a weights
file elsewhere. ``checkpoint.safetensors`` holds the last finished epoch and, below ``optimizer.``, the
optimiser's state. Both are written aside and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ...pipeline.errors import ModelError, OutputError
from ..zoo import ModelSpec, build_model

FORMAT_VERSION = 1
LAST_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
OPTIMIZER_PREFIX = "optimizer."


@dataclass(frozen=True)
class Description:
    """What the weights of a checkpoint belong to; kept as the file's metadata."""

    model: ModelSpec
    classes: tuple[str, ...]
    plan_fingerprint: str
    job: Mapping[str, Any]
    """All keys of the job that decide its result."""
    history: tuple[Mapping[str, Any], ...]
    """Validation metrics of every finished epoch; the weights are those after the last of them."""

    def dump(self) -> dict[str, str]:
        """Return the metadata as safetensors wants it: strings."""
        return {
            "format": "lightwell",
            "format_version": str(FORMAT_VERSION),
            "model": self.model.model_dump_json(),
            "classes": json.dumps(self.classes),
            "plan_fingerprint": self.plan_fingerprint,
            "job": json.dumps(self.job, sort_keys=True),
            "epoch": str(len(self.history) - 1),
            "history": json.dumps(self.history),
        }


@dataclass(frozen=True)
class LoadedModel:
    """A trained model as it was saved, in eval mode on the CPU."""

    model: torch.nn.Module
    classes: tuple[str, ...]
    metadata: Mapping[str, str]


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    description: Description,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write weights, description and, if given, the optimiser's state aside, then rename.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: plain(tensor) for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if value is not None:
                    tensors[f"{OPTIMIZER_PREFIX}{number}.{name}"] = plain(torch.as_tensor(value))
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        aside.write_bytes(save(tensors, metadata=description.dump()))  # save_file would make it private
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: the checkpoint could not be written ({error}); free space, or choose another --out"
        ) from error


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to contiguous memory of its own on the CPU, as safetensors wants it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def read_description(path: Path) -> tuple[Description, dict[str, str]]:
    """Read what a checkpoint's weights belong to, and the metadata as written; reads no weights.

    Raises:
        ModelError: no such file, or not a checkpoint of ours.
    """
    return describe(path, read_metadata(path))


def read_metadata(path: Path) -> dict[str, str]:
    """Read a checkpoint's metadata."""
    if not path.is_file():
        raise ModelError(f"checkpoint: wanted a file such as {BEST_NAME}, got {path}, which is not there; "
                         "train first, or check the path")  # fmt: skip
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"checkpoint: wanted a safetensors file, got {path} ({error}); "
                         f"give {BEST_NAME} of a training run") from error  # fmt: skip
    if metadata.get("format") != "lightwell":
        raise ModelError(f"checkpoint: wanted one that 'lightwell train' wrote, got {path}; "
                         "it names no model and no classes: use it as the weights of a model")  # fmt: skip
    if metadata["format_version"] != str(FORMAT_VERSION):
        got = metadata["format_version"]
        raise ModelError(f"checkpoint: wanted format {FORMAT_VERSION}, got {got} in {path}; "
                         "train again, or use the version of Lightwell that wrote it")  # fmt: skip
    return metadata


def describe(path: Path, metadata: dict[str, str]) -> tuple[Description, dict[str, str]]:
    """Parse metadata."""
    try:
        description = Description(
            model=ModelSpec.model_validate_json(metadata["model"]),
            classes=tuple(json.loads(metadata["classes"])),
            plan_fingerprint=metadata["plan_fingerprint"],
            job=json.loads(metadata["job"]),
            history=tuple(json.loads(metadata["history"])),
        )
    except (KeyError, json.JSONDecodeError, ValidationError) as error:
        raise ModelError(f"checkpoint: the metadata of {path} is damaged ({error}); train again") from error
    return description, metadata


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load a checkpoint's weights into a model, every one of them.

    Raises:
        ModelError: names or shapes differ.
    """
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if not name.startswith(OPTIMIZER_PREFIX)]  # noqa: SIM118
        weights = {name: file.get_tensor(name) for name in names}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"checkpoint: {path} does not fit the model it names: {reason}; "
                         "use the versions of torchvision and timm that wrote it") from error  # fmt: skip


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimiser's state of a checkpoint; its settings stay those it was built with."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  (not a mapping)
            if key.startswith(OPTIMIZER_PREFIX):
                number, _, name = key.removeprefix(OPTIMIZER_PREFIX).partition(".")
                state.setdefault(int(number), {})[name] = file.get_tensor(key)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_model(path: Path) -> LoadedModel:
    """Rebuild a trained model from its checkpoint, in eval mode on the CPU.

    Raises:
        ModelError: no such file, not a checkpoint of ours, or weights that do not fit.
    """
    description, metadata = read_description(Path(path))
    spec = description.model.model_copy(update={"weights": "none"})
    with torch.random.fork_rng():
        model = build_model(spec, num_classes=len(description.classes))
    load_weights(Path(path), model)
    return LoadedModel(model.eval(), description.classes, metadata)
