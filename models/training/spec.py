"""Configuration of every training job: keys, validation, and the keys that determine its result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...pipeline.errors import PlanError, SourceError, did_you_mean
from ...pipeline.index.index import Index
from ...pipeline.jobs.fingerprint import file_digest
from ...pipeline.plan.plan import Plan
from ..zoo.build import ModelSpec, build_model
from ..zoo.load_checkpoint import is_path
from ..zoo.segmentation import SegmentationSpec
from .optim import CheckpointEvery, EarlyStop, OptimizerSpec
from .optimization.options import UpdateOptions, is_later_default
from .optimization.schedule import LRSchedule

if TYPE_CHECKING:
    import torch

    from .tasks.task import Task


class TrainSpec(UpdateOptions):
    """Configuration that all training jobs share; a job adds the keys of its task."""

    plan: Plan
    model: ModelSpec | SegmentationSpec
    feature_passes: int | None = Field(default=None, ge=0)
    """Only where the whole backbone, or its part before ``fine_tune_from``, is frozen: number of passes over the training
    images, each augmented differently, whose features are computed once and cached; epoch e learns from pass e modulo this
    number. 0 takes the images as in evaluation. None runs the whole model in every epoch. Features are kept in the cache
    folder of the plan, if it has one, otherwise below ``--out``."""
    feature_dtype: Literal["float16"] | None = None
    """``float16`` halves the size of the cached features and rounds them to three digits: training then gives what it gives
    on images with the output of the frozen part rounded so. None keeps them as they are computed."""
    epochs: int = Field(default=5, ge=1)
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: LRSchedule = LRSchedule()
    monitor: str = "loss"
    """Validation metric that selects ``best.safetensors``, one of the task's or ``loss``; ties are resolved by the lower
    loss. If it cannot be computed, such as AUROC of a single class, the loss is used."""
    early_stop: EarlyStop | None = None
    average: int | None = Field(default=None, ge=2, le=100)
    """Also write ``average.safetensors``, the mean of the weights of so many epochs, the best ones by ``monitor``, and evaluate
    it beside the best. Their weights are kept in the folder ``epochs`` below ``--out``."""
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str | None = "test"
    """Split to evaluate the best weights on, once, at the end; None for no test."""
    checkpoint_every: CheckpointEvery = CheckpointEvery()
    tensorboard: bool = False
    """Write the metrics of every epoch to an event file in the folder ``tensorboard``, too."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Training device; ``auto`` uses CUDA if available."""

    task_name: ClassVar[str] = "train"
    """Name of the job, kept in checkpoints."""
    weights_key: ClassVar[str] = "weights"
    """Key of ``model`` that may be the path of a file."""

    @model_validator(mode="before")
    @classmethod
    def _watch_the_task(cls, content: Any) -> Any:
        """Let early stopping watch the default metric of the task unless it names one."""
        stop = content.get("early_stop") if isinstance(content, Mapping) else None
        if not isinstance(stop, Mapping) or "metric" in stop:
            return content
        return {**content, "early_stop": {**stop, "metric": cls.model_fields["monitor"].default}}

    @model_validator(mode="after")
    def _check_passes(self) -> Self:
        learning = next((key for key in ("unfreeze", "lora") if getattr(self, key) is not None), None)
        if self.feature_passes is not None and learning is not None:
            raise ValueError(
                f"feature_passes: expected layers that are frozen in all epochs, got {learning}; remove one of them"
            )
        if self.feature_passes is not None and self.fine_tune_from == "all":
            raise ValueError(
                "feature_passes: expected frozen layers, got fine_tune_from: all; name the first block to train, or remove one "
                "of them"
            )
        if self.feature_dtype is not None and self.feature_passes is None:
            raise ValueError(
                f"feature_dtype: expected feature_passes beside it, got {self.feature_dtype} alone; add feature_passes or "
                "remove it"
            )
        if self.feature_passes is not None and self.plan.mix is not None:
            raise ValueError(
                f"feature_passes: expected a plan without mix, got {self.plan.mix.kind}, which mixes the images of each batch "
                "anew; remove one of them"
            )
        if self.feature_passes and self.plan.progressive_size is not None:
            raise ValueError(
                "feature_passes: expected a plan without progressive_size, got one whose images grow while features are kept; "
                "remove one of them"
            )
        return self

    @abstractmethod
    def make_task(self, index: Index, train_rows: np.ndarray) -> Task:
        """Build the task for an index.

        Args:
            index: index of the plan.
            train_rows: rows of the training split; empty if there is no such split.

        Raises:
            PlanError: the index does not fit the task.
        """

    def build_network(self, num_outputs: int, *, seed: int) -> torch.nn.Module:
        """Build the model on the CPU.

        Raises:
            ModelError: the model or its weights do not exist or do not fit.
        """
        assert isinstance(self.model, ModelSpec)
        return build_model(self.model, num_classes=num_outputs, seed=seed, warn=False)

    def saved_model(self, model: torch.nn.Module, num_outputs: int) -> ModelSpec | SegmentationSpec:
        """Return the model as checkpoints record it."""
        from ..zoo.channels import num_input_channels

        recorded = {
            "num_classes": num_outputs,
            "transform_input": getattr(model, "transform_input", None),
            "in_channels": num_input_channels(model),
        }
        return self.model.model_copy(update=recorded)

    def check_network(self, model: torch.nn.Module) -> None:
        """Check that the model accepts the plan's images.

        Raises:
            ModelError: it does not.
        """
        from ..zoo.plan_checks import check_accepts

        check_accepts(model, self.plan)

    def head_layers(self, model: torch.nn.Module) -> tuple[str, ...]:
        """Return the names of the layers that learn at the full rate, not at the backbone's."""
        from ..zoo.heads import classifier_layers

        return classifier_layers(model)

    def check(self) -> Task:
        """Check that the index fits the job; returns the task.

        Raises:
            PlanError: a split is missing or has no targets, or the index does not fit the task.
        """
        index = self.plan.load_index()
        task = self.task_of(index)
        monitors = {
            "monitor": self.monitor,
            "early_stop.metric": self.early_stop.metric if self.early_stop else "loss",
        }
        for key, metric in monitors.items():
            known = ("loss", *task.metric_names)
            if metric not in known:
                hint = did_you_mean(metric, known) or "correct it"
                raise PlanError(f"{key}: expected one of {', '.join(known)}, got {metric!r}; {hint}")
        names = {
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
        }
        labelled = task.is_labelled
        for key, name in names.items():
            if name is None:
                continue
            rows = rows_of_split(index, name, key)
            if labelled is not None and not labelled[rows].any():
                raise PlanError(
                    f"{key}: expected images with labels in {name!r}, got none; label them and index again"
                )
        task.check_training(self.train_split)
        return task

    def task_of(self, index: Index) -> Task:
        """Build the task for the plan's index.

        Raises:
            PlanError: the index does not fit the task.
        """
        try:
            rows = index.rows(self.train_split)
        except SourceError:  # ``check`` reports it
            rows = np.arange(0)
        return self.make_task(index, rows)

    def validation_notes(self, index: Index, task: Task) -> tuple[str, ...]:
        """Return warnings about the targets of the validation split: absent classes and undefined metrics."""
        monitors = {"monitor": self.monitor}
        if self.early_stop is not None:
            monitors["early_stop"] = self.early_stop.metric
        return task.validation_notes(index.rows(self.validation_split), self.validation_split, monitors)

    def plan_warnings(self) -> tuple[str, ...]:
        """Return warnings where the plan's preprocessing differs from that of the weights, with YAML lines that fix it.

        Raises:
            ModelError: no such model.
        """
        from ..zoo.plan_checks import data_warnings

        assert isinstance(self.model, ModelSpec)
        return data_warnings(self.model, self.plan)

    def result_config(self) -> dict[str, Any]:
        """Return all keys that determine the result, flattened; a run is resumed only by a job with equal values.

        The index and the weights file count by content, not by path. ``epochs`` is left out where the schedule does not
        depend on it, so that a finished run can be extended.
        """
        left_out = {"plan", "device", "checkpoint_every", "tensorboard", "time_budget"}
        content = self.model_dump(mode="json", exclude=left_out)
        if is_path(self.model.weights):
            content["model"][self.weights_key] = _weights_digest(Path(self.model.weights))
        if not self.schedule.depends_on_epochs:
            del content["epochs"]
        plan = self.plan.dump()
        del plan["device"], plan["resources"]
        plan["cache"] = None if self.plan.cache is None else self.plan.cache.fingerprint_fields()
        plan["errors"] = self.plan.errors.fingerprint_fields()
        content["plan"] = {**plan, "index": f"content {self.plan.load_index().fingerprint()}"}
        return {key: value for key, value in flatten(content).items() if not is_later_default(key, value)}

    def drop_last_batch(self, num_rows: int) -> bool:
        """Return whether to drop a last batch of one image, on which BatchNorm cannot train."""
        size = self.plan.batch.size
        return self.trains_backbone and 1 < size < num_rows and num_rows % size == 1


def _weights_digest(path: Path) -> str:
    """Return a file's name and digest; its name alone if it is missing, which building the model reports."""
    if not path.is_file():
        return path.name
    return f"{path.name} sha256 {file_digest(path)}"


def rows_of_split(index: Index, split: str, key: str) -> np.ndarray:
    """Return the usable rows of a split.

    Raises:
        PlanError: no such split; the message lists the existing ones.
    """
    try:
        return index.rows(split)
    except SourceError as error:
        usable = np.asarray(index.table["status"].to_pylist()) == "ok"
        found = sorted({s for s in np.asarray(index.table["split"].to_pylist())[usable] if s is not None})
        hint = "; or write test_split: null" if key == "test_split" else ""
        raise PlanError(f"{key}: expected a split of the index, got {split!r}; it has "
                        f"{', '.join(found) or 'no splits'}{hint}") from error  # fmt: skip


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            result.update(flatten(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result
