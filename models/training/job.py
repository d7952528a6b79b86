"""Training jobs: transfer learning, of the head alone or fine-tuned from a given block on.

A job file::

    job: classify
    plan: plan.yaml
    model: {name: tf_efficientnet_lite0, weights: default}
    fine_tune_from: blocks.6        # default: the backbone is frozen and only the head is trained
    epochs: 5
    optimizer: {name: adamw, lr: 0.002}
    class_weights: balanced
    checkpoint_every: {seconds: 60} # or {steps: 100}

``lightwell train JOB.yaml --out DIR`` writes figures, ``run.json``, ``metrics.jsonl``, ``best.safetensors``, ``result.json`` and
``checkpoint.safetensors``. Run again with the same ``--out``, it resumes after the step of the last checkpoint, and the
result is the same as without the interruption, whatever the number of ranks before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...pipeline.errors import PlanError
from ...pipeline.index.index import Index
from ...pipeline.jobs.contracts import Context, Feed, ResumePoint
from ...pipeline.jobs.fingerprint import fingerprint_of
from ...pipeline.plan.view import View
from ...pipeline.sampler.schedule import Schedule
from ..zoo.build import ModelSpec
from .spec import TrainSpec

if TYPE_CHECKING:
    from .optimization.learning_table import LearningRow
    from .tasks.task import Task


class TrainJob(TrainSpec):
    """Train a model for a task by transfer learning; each task has a subclass.

    If ``torch.distributed`` is initialized, each rank takes its slice of every batch, and the result is that of a single
    process with the same global batch.
    """

    @property
    def view(self) -> View:
        """View of the training split, shuffled and augmented, for all epochs; reads the index."""
        return View(
            split=self.train_split,
            shuffle=True,
            augment=True,
            num_epochs=self.epochs,
            drop_last=self.trains_backbone
            and self.drop_last_batch(len(self.plan.load_index().rows(self.train_split))),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        from .checkpoint import BEST_NAME, LAST_NAME
        from .metrics_logger import METRICS_NAME, RESULT_NAME
        from .results import FILES
        from .run.average import average_outputs
        from .tensorboard import EVENTS_NAME

        events = (EVENTS_NAME,) if self.tensorboard else ()
        return (LAST_NAME, BEST_NAME, METRICS_NAME, RESULT_NAME, *FILES, *events, *average_outputs(self))

    def resume_point(self, out: Path) -> ResumePoint:
        """Return the view that remains to be read after the checkpoint in ``out``.

        Raises:
            PlanError: the folder holds a run of another job or plan.
            ModelError: the checkpoint or the best weights are damaged.
        """
        from .checkpoint import BEST_NAME, read_metadata, read_tensors
        from .resume import read_resume_state

        view = self.view
        standing = read_resume_state(self, view, out)
        if standing.history:  # fail now rather than after the last epoch
            read_metadata(out / BEST_NAME)
            read_tensors(out / BEST_NAME)
        return standing.resume_point(self, view)

    def check_request(self, *, trains_here: bool) -> None:
        """Check index, model, weights, block, image size and, if this process trains, the device.

        Raises:
            PlanError: the index does not fit the job.
            ModelError: the model or its weights cannot be used, or do not accept the plan's images.
        """
        from .run.start import check_request

        check_request(self, trains_here=trains_here)

    def learning(self) -> list[LearningRow]:
        """List the blocks that learn, from which epoch and at which rate; reads the index but no weights.

        Raises:
            PlanError: the index does not fit the job.
            ModelError: a block does not exist.
        """
        from .optimization.learning_table import learning_table

        untrained = self.model.model_copy(update={self.weights_key: "none", "weights_entry": None})
        job = self.model_copy(update={"model": untrained})
        model = job.build_network(len(self.check().classes), seed=0)
        return learning_table(model, self.stages, self.optimizer, self.lora, self.head_layers(model))

    def check_ranks(self, num_ranks: int) -> None:
        """Check that a number of ranks can share the job's batches.

        Raises:
            PlanError: the batch cannot be split among them.
        """
        if self.compile and num_ranks > 1:
            raise PlanError(
                f"compile: expected false with {num_ranks} ranks, got true; remove it, or train in one process"
            )
        self.check()
        index, view = self.plan.load_index(), replace(self.view, num_ranks=num_ranks)
        Schedule.of(self.plan, view, index, index.rows(view.split))

    @property
    def shared_work(self) -> str | None:
        """Fingerprint of the features of the frozen part, with ``feature_passes``; see ``SharesWork``."""
        if self.feature_passes is None:
            return None
        names = (
            "model.",
            "plan.",
            "fine_tune_from",
            "feature_passes",
            "precision",
            "train_split",
            "validation_split",
        )
        found = self.result_config()
        return fingerprint_of({key: value for key, value in found.items() if key.startswith(names)})

    def share(self, context: Context) -> None:
        """Compute the features of the frozen part; see ``SharesWork``.

        Raises:
            ModelError: the model or its weights cannot be loaded, or cannot be separated.
            RunError: more images are bad than the plan tolerates.
        """
        from .run.start import compute_features

        compute_features(self, context)

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:
        """Train, validate after every epoch and keep the best weights; resumes a run in ``context.out``.

        Returns:
            ``best_epoch`` (counted from 0), ``epochs`` (finished), metrics of ``validation`` and ``test``, and
            ``checkpoint``, the path of the best weights.

        Raises:
            PlanError: the index does not fit the task or lacks a split, or ``out`` holds another run.
            ModelError: the model or its weights cannot be loaded.
            RunError: the loss is not finite.
        """
        from .run.start import run_job

        return run_job(self, self.view, feed, context)


class Classify(TrainJob):
    """Train a classifier of images with one class each."""

    model: ModelSpec
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced`` weights each class by images / (classes * images of the class)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    monitor: Literal["loss", "accuracy", "balanced_accuracy", "auroc"] = "auroc"

    task_name: ClassVar[str] = "classify"

    def make_task(self, index: Index, train_rows: np.ndarray) -> Task:
        """Build the task; see ``TrainSpec.make_task``."""
        from .tasks.classification import ClassificationTask

        if self.class_weights != "none" and self.plan.sampling is not None:
            raise PlanError(
                f"class_weights: expected none beside the plan's sampling, got {self.class_weights}; combining them corrects "
                "class imbalance twice: remove one of them"
            )
        balanced = self.class_weights == "balanced"
        return ClassificationTask(index, train_rows, balanced=balanced, label_smoothing=self.label_smoothing)
