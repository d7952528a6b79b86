"""Checkpoints in safetensors files, without pickle: weights, optimizer state, progress and metadata.

``best.safetensors`` holds the weights of the best epoch under the model's parameter names, so other tools can load it.
``checkpoint.safetensors`` holds the state to resume from: weights, optimizer state with the prefix ``optimizer.`` and
running metrics of the epoch with the prefix ``progress.``. Both are written atomically and contain a digest of their
content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ...pipeline.atomic_io import atomic_write
from ...pipeline.errors import ModelError, OutputError, RunError
from ..zoo.build import ModelSpec, build_model
from ..zoo.hubs import WITH_AUXILIARY_HEADS, find_model
from ..zoo.segmentation import SegmentationSpec, build_segmentation_model
from ..zoo.weights import check_finite
from ..zoo.weights_report import WeightsReport, attach_report
from .checkpoint_values import (
    check_classes,
    check_history,
    check_mapping,
    check_optimizer_state,
    check_progress,
    check_sums,
    check_thresholds,
    parse_temperature,
)
from .optimization.lora import is_adapted, merge_lora
from .saved_plan import SavedPlan

FORMAT_VERSION = 3
READABLE_VERSIONS = ("1", "2", "3")
"""Version 1 has no digest and no progress: it was written at the end of an epoch. Version 2 has no plan of its own."""
MONITORS = ("monitor", "early_stop.metric")
"""Keys of a job that name the metrics to compare between epochs."""
LAST_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
OPTIMIZER_PREFIX = "optimizer."
PROGRESS_PREFIX = "progress."
STATE_PREFIX = "state."
"""Of what else a resumed run needs; see ``optimization.update_state``."""


@dataclass(frozen=True)
class Progress:
    """Position within the first unfinished epoch, and its running metrics."""

    step: int = 0
    """Next step of the epoch; equal to the number of steps if only validation is left."""
    position: Mapping[str, Any] | None = None
    """Position of the training feed; None for its start."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Images read, used, replaced and skipped so far, over all ranks."""
    loss: float = 0.0
    """Sum over the images."""
    num_read: int = 0
    seconds: float = 0.0
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """``RunningMetrics.sums`` of the task, such as a confusion matrix."""

    def dump(self) -> str:
        """Return all fields but the tensors as JSON; floats are exact."""
        return json.dumps({name: getattr(self, name) for name in PROGRESS_NAMES}, sort_keys=True)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by their names in the file."""
        return {f"{PROGRESS_PREFIX}{name}": value for name, value in self.sums.items()}


PROGRESS_NAMES = ("step", "position", "counts", "loss", "num_read", "seconds")


@dataclass(frozen=True)
class CheckpointMetadata:
    """Model, classes, plan, job and history of a checkpoint's weights; stored as metadata of the file."""

    model: ModelSpec | SegmentationSpec
    classes: tuple[str, ...]
    plan_fingerprint: str
    job: Mapping[str, Any]
    """``result_config`` of the job."""
    history: tuple[Mapping[str, Any], ...]
    """Validation metrics of every finished epoch."""
    weights: WeightsReport | None = None
    """Initial weights of the run, with a note of random layers that stay frozen; None in older checkpoints."""
    validation_notes: str = ""
    """Limitations of the validation split, such as the metric that replaces the job's ``monitor``."""
    task: str = "classify"
    """Name of the job, as in a job file."""
    thresholds: tuple[float, ...] = ()
    """Probability from which on each output is predicted, chosen on the validation split; empty if the task has none."""
    plan: SavedPlan | None = None
    """Transforms and decoding of the plan's evaluation; in older checkpoints those of the job."""
    temperature: float = 1.0
    """Divisor of the logits that calibrates probabilities (Guo et al., ICML 2017); 1 without calibration."""

    def dump(self) -> dict[str, str]:
        """Return the metadata as strings, as safetensors requires."""
        later = {} if self.weights is None else {"weights_report": self.weights.dump()}
        later |= {"monitor": self.validation_notes} if self.validation_notes else {}
        later |= {"task": self.task} if self.task != "classify" else {}
        later |= {"thresholds": json.dumps(self.thresholds)} if self.thresholds else {}
        later |= {} if self.plan is None else {"plan": self.plan.dump()}
        later |= {} if self.temperature == 1 else {"temperature": repr(self.temperature)}
        return later | {
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
    """A trained model, in eval mode on the CPU."""

    model: torch.nn.Module
    classes: tuple[str, ...]
    metadata: Mapping[str, str]


def save_checkpoint(
    path: Path,
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    metadata: CheckpointMetadata,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write weights (a model's, or by name), metadata and, if given, optimizer state, progress and other state, atomically.

    Without an optimizer the weights are those of the plain network, low-rank updates added.

    Raises:
        RunError: a weight is not finite; nothing is written.
        OutputError: the file cannot be written.
    """
    weights = model.state_dict() if isinstance(model, torch.nn.Module) else dict(model)
    if optimizer is None:
        weights = merge_lora(weights)
    tensors = {name: to_cpu(tensor) for name, tensor in weights.items()}
    try:
        check_finite(tensors, path.name)
    except ModelError as error:
        raise RunError(f"training: {error}") from error
    if optimizer is not None:
        for number, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    tensors[f"{OPTIMIZER_PREFIX}{number}.{name}"] = to_cpu(torch.as_tensor(value))
    tensors |= {f"{STATE_PREFIX}{name}": to_cpu(tensor) for name, tensor in (state or {}).items()}
    header = metadata.dump()
    if progress is not None:
        tensors |= progress.tensors
        header["progress"] = progress.dump()
    header["digest"] = content_digest(tensors, header)
    try:
        content = save(tensors, metadata=header)
    except SafetensorError as error:
        raise OutputError(f"expected to write {str(path)!r}, got {error}; choose another --out") from error
    head, data = _sorted_header(content)
    with atomic_write(path) as file:
        file.write(head)
        file.write(data)


def _sorted_header(content: bytes) -> tuple[bytes, memoryview]:
    """Sort the metadata of a safetensors file, whose order is random, so that equal checkpoints are equal files.

    Returns:
        The header with its length, and the tensors.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(content)[end:]


def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to contiguous CPU memory, as safetensors requires."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def content_digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """Hash the tensors and metadata of a checkpoint, without the digest itself."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(header.keys() - {"digest"}):
        digest.update(f"{name}\0{header[name]}\0".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a checkpoint, on the CPU.

    Raises:
        ModelError: the file cannot be read or does not match its digest.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"checkpoint: {path} cannot be read ({error}); train again") from error
    if header.get("digest", "") not in ("", content_digest(tensors, header)):
        raise ModelError(f"checkpoint: {path} is damaged: its content does not match its digest; "
                         "restore it from a copy, or delete it and train again")  # fmt: skip
    return tensors


def read_metadata(path: Path) -> tuple[CheckpointMetadata, dict[str, str]]:
    """Read a checkpoint's metadata, parsed and as strings; reads no weights.

    Raises:
        ModelError: the file does not exist, or is not a Lightwell checkpoint.
    """
    return parse_metadata(path, read_header(path))


def read_header(path: Path) -> dict[str, str]:
    """Read a checkpoint's metadata as strings and check its format."""
    if not path.is_file():
        raise ModelError(f"checkpoint: expected a file such as {BEST_NAME}, got {path}, which does not exist; "
                         "train first, or check the path")  # fmt: skip
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"checkpoint: expected a safetensors file, got {path} ({error}); "
                         f"give {BEST_NAME} of a training run") from error  # fmt: skip
    if header.get("format") != "lightwell":
        raise ModelError(f"checkpoint: expected one that 'lightwell train' wrote, got {path}; "
                         "it has no metadata of model and classes: use it as the weights of a model")  # fmt: skip
    got = header.get("format_version", "none")
    if got not in READABLE_VERSIONS:
        raise ModelError(f"checkpoint: expected format {FORMAT_VERSION}, got {got} in {path}; "
                         "train again, or use the version of Lightwell that wrote it")  # fmt: skip
    return header


def parse_metadata(path: Path, header: dict[str, str]) -> tuple[CheckpointMetadata, dict[str, str]]:
    """Parse and validate metadata."""
    model_kind: type[ModelSpec | SegmentationSpec] = (
        SegmentationSpec if header.get("task") == "segment" else ModelSpec
    )
    try:
        job = check_mapping("job", json.loads(header["job"]))
        metadata = CheckpointMetadata(
            model=model_kind.model_validate_json(header["model"]),
            classes=check_classes(json.loads(header["classes"])),
            plan_fingerprint=header["plan_fingerprint"],
            job=job,
            history=check_history(json.loads(header["history"]), [job.get(key) for key in MONITORS]),
            weights=(WeightsReport.parse(header["weights_report"]) if "weights_report" in header else None),
            validation_notes=header.get("monitor", ""),
            task=header.get("task", "classify"),
            thresholds=check_thresholds(json.loads(header.get("thresholds", "[]"))),
            plan=SavedPlan.parse(header["plan"]) if "plan" in header else SavedPlan.from_job(job),
            temperature=parse_temperature(header.get("temperature", "1")),
        )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"checkpoint: the metadata of {path} is damaged ({reason}); train again") from error
    return metadata, header


def read_progress(
    path: Path, header: Mapping[str, str], expected: Mapping[str, torch.Tensor] | None = None
) -> Progress:
    """Read the progress of a run; a checkpoint without progress was written at the end of an epoch.

    Args:
        path: the checkpoint.
        header: its metadata.
        expected: empty sums of the task, whose names, dtypes and shapes have to match; None reads any.
    """
    if "progress" not in header:
        return Progress()
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PROGRESS_PREFIX)]  # noqa: SIM118
            sums = {name.removeprefix(PROGRESS_PREFIX): file.get_tensor(name) for name in names}
        values = json.loads(header["progress"])
        check_progress(values, PROGRESS_NAMES)
        check_sums(sums, expected)
        return Progress(**values, sums=sums)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"checkpoint: the progress in {path} is damaged ({error}); train again") from error


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load all weights of a checkpoint into a model.

    Raises:
        ModelError: names or shapes differ, a weight is not finite, or the file is damaged.
    """
    others = (OPTIMIZER_PREFIX, PROGRESS_PREFIX, STATE_PREFIX)
    weights = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith(others)}
    check_finite(weights, str(path))
    if not is_adapted(model.state_dict()):
        weights = merge_lora(weights)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"checkpoint: {path} does not fit the model in its metadata: {reason}; "
                         "use the torchvision and timm versions it was written with") from error  # fmt: skip


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer state of a checkpoint, keeping the optimizer's hyperparameters.

    State tensors with the shape of their parameter get its memory format, as if the optimizer had created them.

    Raises:
        ModelError: the state belongs to another optimizer or model, or has invalid values.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    try:
        for key, tensor in read_tensors(path).items():
            if key.startswith(OPTIMIZER_PREFIX):
                number, _, name = key.removeprefix(OPTIMIZER_PREFIX).partition(".")
                state.setdefault(int(number), {})[name] = tensor
        check_optimizer_state(state, optimizer)
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"checkpoint: the optimizer state in {path} is invalid ({error}); restore the checkpoint from a copy, or delete "
            "it and train again"
        ) from error
    laid_out = {
        number: {
            name: torch.empty_like(parameters[number], device="cpu").copy_(tensor)
            if tensor.shape == parameters[number].shape
            else tensor
            for name, tensor in tensors.items()
        }
        for number, tensors in state.items()
    }
    optimizer.load_state_dict({"state": laid_out, "param_groups": optimizer.state_dict()["param_groups"]})


def load_model(path: Path) -> LoadedModel:
    """Rebuild a trained model from its checkpoint, in eval mode on the CPU.

    Raises:
        ModelError: the file does not exist, is not a Lightwell checkpoint, or its weights do not fit the model.
    """
    path = Path(path)
    metadata, header = read_metadata(path)
    if isinstance(metadata.model, SegmentationSpec):
        without = metadata.model.model_copy(update={"encoder_weights": "none"})
        model = build_segmentation_model(without, len(metadata.classes))
    else:
        model = build_model(untrained_spec(metadata.model), num_classes=len(metadata.classes))
    load_weights(path, model)
    begun = metadata.weights or WeightsReport("unknown")
    report = WeightsReport(path.name, len(model.state_dict()), notes=begun.notes)
    if not metadata.history:
        report = report.with_new_layers(begun.untrained, "no epoch is finished")
    attach_report(model, report)
    return LoadedModel(model, metadata.classes, header)


def untrained_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of a checkpoint's network without pretrained weights.

    Checkpoints of GoogLeNet and Inception without a recorded ``transform_input`` had it enabled.
    """
    changes: dict[str, Any] = {"weights": "none", "weights_entry": None}
    hub, name = find_model(spec.name)
    if hub == "torchvision" and name in WITH_AUXILIARY_HEADS and spec.transform_input is None:
        changes["transform_input"] = True
    return spec.model_copy(update=changes)
