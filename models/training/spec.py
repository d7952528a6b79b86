"""Configuration of a training job: keys, validation, and the keys that determine its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.errors import PlanError
from ...pipeline.index.index import Index
from ...pipeline.jobs.fingerprint import file_digest
from ...pipeline.plan.plan import Plan
from ...pipeline.text import first_few
from ..zoo.build import ModelSpec
from ..zoo.load_checkpoint import is_path
from .optim import CheckpointEvery, EarlyStop, MetricName, OptimizerSpec
from .optimization.options import is_later_default
from .optimization.schedule import LRSchedule


class ClassifySpec(CheckedModel):
    """Configuration of a classifier's training; see ``job``."""

    plan: Plan
    model: ModelSpec
    fine_tune_from: str | None = None
    """None trains only the head. The name of a block trains it and all later blocks. ``all`` trains the whole model."""
    feature_passes: int | None = Field(default=None, ge=0)
    """Only where the whole backbone, or its part before ``fine_tune_from``, is frozen: number of passes over the training
    images, each augmented differently, whose features are computed once and cached; epoch e learns from pass e modulo this
    number. 0 takes the images as in evaluation. None runs the whole model in every epoch. Features are kept in the cache
    folder of the plan, if it has one, otherwise below ``--out``."""
    epochs: int = Field(default=5, ge=1)
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: LRSchedule = LRSchedule()
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced`` weights each class by images / (classes * images of the class)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    monitor: MetricName = "auroc"
    """Validation metric that selects ``best.safetensors``; ties are resolved by the lower loss. If it cannot be computed,
    such as AUROC of a single class, the loss is used."""
    early_stop: EarlyStop | None = None
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str | None = "test"
    """Split to evaluate the best weights on, once, at the end; None for no test."""
    checkpoint_every: CheckpointEvery = CheckpointEvery()
    precision: Literal["float32", "float64"] = "float32"
    """Precision of parameters and scores. ``float64`` is slow; results of different numbers of ranks then differ only by
    rounding."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Training device; ``auto`` uses CUDA if available."""

    @model_validator(mode="after")
    def _check_passes(self) -> Self:
        if self.feature_passes is not None and self.fine_tune_from == "all":
            raise ValueError(
                "feature_passes: expected frozen layers, got fine_tune_from: all; name the first block to train, or remove one "
                "of them"
            )
        if self.feature_passes is not None and self.plan.mix is not None:
            raise ValueError(
                f"feature_passes: expected a plan without mix, got {self.plan.mix.kind}, which mixes the images of each batch "
                "anew; remove one of them"
            )
        return self

    def check(self) -> Index:
        """Check that the index fits the job; returns the index.

        Raises:
            PlanError: the index has fewer than two classes, lacks a split or its labels, or has a class without training
                images.
        """
        if self.class_weights != "none" and self.plan.sampling is not None:
            raise PlanError(f"class_weights: expected none beside the plan's sampling, got {self.class_weights}; combining "
                            "them corrects class imbalance twice: remove one of them")  # fmt: skip
        index = self.plan.load_index()
        if index.is_multi_label:
            raise PlanError(
                "index: expected one class per image, got images with several (column 'labels'); training on several "
                "classes per image is not supported yet: index with one label per image"
            )
        if len(index.classes) < 2:
            raise PlanError(f"classes: expected at least two classes, got "
                            f"{'none' if not index.classes else 'one'} "
                            f"({', '.join(index.classes) or 'no labels'}); index a folder per class, "
                            "or a table with a label column")  # fmt: skip
        names = {
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
        }
        usable = np.asarray(index.table["status"].to_pylist()) == "ok"
        splits = sorted({s for s in np.asarray(index.table["split"].to_pylist())[usable] if s is not None})
        for key, name in names.items():
            if name is not None and not len(labels_of_split(index, name, key, splits)):
                raise PlanError(
                    f"{key}: expected images with labels in {name!r}, got none; label them and index again"
                )
        counts = np.bincount(
            labels_of_split(index, self.train_split, "train_split", splits), minlength=len(index.classes)
        )
        missing = [name for name, count in zip(index.classes, counts, strict=True) if not count]
        if missing:
            raise PlanError(f"train_split: expected images of every class in {self.train_split!r}, got none of "
                            f"{', '.join(map(repr, missing))}; add some, or index without them")  # fmt: skip
        return index

    def validation_notes(self, index: Index) -> tuple[str, ...]:
        """Return warnings about the labels of the validation split: absent classes and undefined metrics."""
        labels = index.table["label"].to_numpy()[index.rows(self.validation_split)]
        present = np.unique(labels[labels >= 0])
        absent = [name for number, name in enumerate(index.classes) if number not in set(present.tolist())]
        notes = []
        if absent:
            shown = first_few([*map(repr, absent)], 5)
            notes.append(f"no image of {shown} in {self.validation_split!r}: these classes are not validated")
        monitors = {"monitor": self.monitor, "early_stop": self.early_stop and self.early_stop.metric}
        undefined = [key for key, metric in monitors.items() if metric == "auroc"]
        if undefined and len(present) < 2:
            notes.append(
                f"AUROC is undefined with one class in {self.validation_split!r}: "
                f"{' and '.join(undefined)} use the validation loss"
            )
        return tuple(notes)

    def plan_warnings(self) -> tuple[str, ...]:
        """Return warnings where the plan's preprocessing differs from that of the weights, with YAML lines that fix it.

        Raises:
            ModelError: no such model.
        """
        from ..zoo.plan_checks import data_warnings

        return data_warnings(self.model, self.plan)

    def result_config(self) -> dict[str, Any]:
        """Return all keys that determine the result, flattened; a run is resumed only by a job with equal values.

        The index and the weights file count by content, not by path. ``epochs`` is left out where the schedule does not
        depend on it, so that a finished run can be extended.
        """
        content = self.model_dump(mode="json", exclude={"plan", "device", "checkpoint_every"})
        if is_path(self.model.weights):
            content["model"]["weights"] = _weights_digest(Path(self.model.weights))
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
        return self.fine_tune_from is not None and 1 < size < num_rows and num_rows % size == 1


def _weights_digest(path: Path) -> str:
    """Return a file's name and digest; its name alone if it is missing, which building the model reports."""
    if not path.is_file():
        return path.name
    return f"{path.name} sha256 {file_digest(path)}"


def labels_of_split(index: Index, split: str, key: str, splits: list[str]) -> np.ndarray:
    """Return the labels of a split's usable rows, unlabelled ones left out.

    Raises:
        PlanError: no such split; the message lists the existing ones.
    """
    from ...pipeline.errors import SourceError

    try:
        rows = index.rows(split)
    except SourceError as error:
        hint = "; or write test_split: null" if key == "test_split" else ""
        raise PlanError(f"{key}: expected a split of the index, got {split!r}; it has "
                        f"{', '.join(splits) or 'no splits'}{hint}") from error  # fmt: skip
    labels = index.table["label"].to_numpy()[rows]
    return np.asarray(labels[labels >= 0], dtype=np.int64)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            result.update(flatten(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result
