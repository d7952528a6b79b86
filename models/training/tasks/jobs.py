"""Training jobs of the other tasks: ``multilabel``, ``segment``, and ``train`` for tasks of other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.config.imports import AllowedModules, import_object
from ....pipeline.errors import PlanError
from ....pipeline.index.index import Index
from ...zoo.build import ModelSpec
from ...zoo.segmentation import SegmentationSpec, build_segmentation_model, head_layers, stride_of
from ..job import TrainJob

if TYPE_CHECKING:
    import torch

    from .task import Task

MAX_VALUE = 254


class Multilabel(TrainJob):
    """Train a classifier of images with any number of classes each.

    A job file::

        job: multilabel
        plan: plan.yaml
        model: {name: tf_efficientnet_lite0, weights: default}
        positive_weights: balanced
    """

    model: ModelSpec
    positive_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weight of each class where an image has it: ``balanced`` is images without / images with it; or one for each class."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    monitor: Literal["loss", "map", "f1"] = "map"

    task_name: ClassVar[str] = "multilabel"

    @field_validator("positive_weights")
    @classmethod
    def _check_positive(cls, weights: Any) -> Any:
        if not isinstance(weights, str) and not all(weight > 0 for weight in weights):
            raise ValueError(f"positive_weights: expected weights above 0, got {list(weights)}; correct them")
        return weights

    def make_task(self, index: Index, train_rows: np.ndarray) -> Task:
        """Build the task; see ``TrainSpec.make_task``."""
        from .multilabel import MultilabelTask

        if self.positive_weights == "balanced" and self.plan.sampling is not None:
            raise PlanError(
                "positive_weights: expected none or a weight for each class beside the plan's sampling, got balanced; combining "
                "them corrects class imbalance twice: remove one of them"
            )
        return MultilabelTask(
            index,
            train_rows,
            positive_weights=self.positive_weights,
            label_smoothing=self.label_smoothing,
        )


class SegmentationLoss(CheckedModel):
    """Weights of the two terms of the loss."""

    cross_entropy: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.cross_entropy and not self.dice:
            raise ValueError("loss: expected a weight above 0, got 0 for both; raise one of them")
        return self


class Segment(TrainJob):
    """Train a segmentation network on masks.

    A job file::

        job: segment
        plan: plan.yaml
        model: {name: unet, encoder: resnet34}   # without encoder: the U-Net of 2015, from scratch
        classes: [sky, building, road]           # of the values 0, 1, 2 of the masks; or num_classes: 3
        void: 3                                  # pixels without a class, as is 255
    """

    model: SegmentationSpec
    classes: tuple[str, ...] | None = None
    """Names of the values of the masks in ascending order, without those of ``void``."""
    num_classes: int | None = Field(default=None, ge=2, le=255)
    """Instead of ``classes``: how many there are; they are then named by number."""
    void: int | tuple[int, ...] = ()
    """Values of pixels without a class, which count in neither loss nor metrics, as 255 and pictures without a mask."""
    loss: SegmentationLoss = SegmentationLoss()
    fine_tune_from: str | None = "all"
    """As in ``TrainSpec``; ``decoder`` keeps the encoder as it is."""
    monitor: Literal["loss", "miou", "pixel_accuracy"] = "miou"

    task_name: ClassVar[str] = "segment"
    weights_key: ClassVar[str] = "encoder_weights"

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if (self.classes is None) == (self.num_classes is None):
            got = "none" if self.classes is None else "both"
            raise ValueError(f"classes: expected either classes or num_classes, got {got}; write one of them")
        if self.classes is not None and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ValueError(
                f"classes: expected at least two different names, got {list(self.classes)}; correct them"
            )
        num_values = len(self.void_values) + len(self.class_names)
        if not all(0 <= value <= MAX_VALUE for value in self.void_values) or num_values > MAX_VALUE + 1:
            raise ValueError(
                f"void: expected values of 0 to {MAX_VALUE} that leave room for the classes, got {list(self.void_values)}; "
                "correct them (255 is always void)"
            )
        if self.feature_passes is not None:
            raise ValueError(
                "feature_passes: expected none for segmentation, whose features are as large as its pictures, got "
                f"{self.feature_passes}; remove it"
            )
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classes or tuple(map(str, range(self.num_classes or 0)))

    @property
    def void_values(self) -> tuple[int, ...]:
        """Different values of void pixels."""
        return tuple(sorted({self.void} if isinstance(self.void, int) else {*self.void}))

    def make_task(self, index: Index, train_rows: np.ndarray) -> Task:  # noqa: ARG002
        """Build the task; see ``TrainSpec.make_task``."""
        from .segmentation import SegmentationTask

        return SegmentationTask(
            index,
            classes=self.class_names,
            void=self.void_values,
            cross_entropy=self.loss.cross_entropy,
            dice=self.loss.dice,
        )

    def build_network(self, num_outputs: int, *, seed: int) -> torch.nn.Module:
        """Build the network; see ``TrainSpec.build_network``."""
        return build_segmentation_model(self.model, num_outputs, seed=seed)

    def saved_model(self, model: torch.nn.Module, num_outputs: int) -> SegmentationSpec:  # noqa: ARG002
        """Return the network as checkpoints record it."""
        return self.model.model_copy(update={"num_classes": num_outputs})

    def head_layers(self, model: torch.nn.Module) -> tuple[str, ...]:
        """Return all layers but those of the encoder."""
        return head_layers(model)

    def plan_warnings(self) -> tuple[str, ...]:
        """Return none: what preprocessing encoders expect is not recorded with them."""
        return ()

    def check_network(self, model: torch.nn.Module) -> None:
        """Check that height and width of the plan's images are multiples of the network's stride.

        Raises:
            PlanError: they are not; the message has the nearest sizes.
        """
        from ...zoo.plan_checks import output_shape

        stride = stride_of(model)
        found = [("preprocess", output_shape(self.plan)), ("augment", output_shape(self.plan, augment=True))]
        found += [("progressive_size", (0, *step.size)) for step in self.plan.progressive_size or ()]
        for key, shape in found:
            if shape is not None and (shape[1] % stride or shape[2] % stride):
                sizes = [nearest_multiples(side, stride) for side in shape[1:]]
                raise PlanError(
                    f"{key}: expected images whose height and width are multiples of {stride}, as the network halves them, "
                    f"got {shape[1]} x {shape[2]}; resize, pad or crop them to a height of {sizes[0]} and a width of {sizes[1]}"
                )
        super().check_network(model)


class Train(TrainJob):
    """Train a model for a task of another package.

    A job file::

        job: train
        task: your_package.tasks:YourTask   # a class of `lightwell.models.training.tasks.task.Task`
        options: {scale: 10}                # its keyword arguments
        plan: plan.yaml
        model: {name: resnet18}
    """

    model: ModelSpec
    task: str
    """``module:Class``; its module has to be allowed (``--allow-import your_package``)."""
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("task")
    @classmethod
    def _check_allowed(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not None:
            AllowedModules.from_context(info.context).check(name, "task", group=TASKS)
        return name

    def make_task(self, index: Index, train_rows: np.ndarray) -> Task:
        """Import the class and build the task; see ``TrainSpec.make_task``."""
        from .task import Task

        kind = import_object(self.task, "task")
        if not (isinstance(kind, type) and issubclass(kind, Task)):
            raise PlanError(
                f"task: expected a class of {Task.__module__}:Task, got {self.task!r}; inherit from it"
            )
        try:
            return kind(index, train_rows, **self.options)  # type: ignore[call-arg]  # by contract
        except TypeError as error:
            raise PlanError(
                f"options: expected those of {self.task}, got an error ({error}); correct them"
            ) from error


def nearest_multiples(side: int, stride: int) -> str:
    """Return the multiples of a stride around a side, such as ``32 or 48``; the side itself if it is one."""
    below = side // stride * stride
    return " or ".join(str(size) for size in (below, below + stride)[: 1 if below == side else 2] if size)


TASKS = "lightwell.tasks"
"""Entry points whose classes need no permission."""
