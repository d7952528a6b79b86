"""The training job: a classifier learns the classes of an index, by its head alone or from a block on.

A job file::

    job: classify
    plan: plan.yaml
    model: {name: tf_efficientnet_lite0, weights: default}
    fine_tune_from: blocks.6        # left out: the trunk is frozen and only the head learns
    epochs: 5
    optimizer: {name: adamw, lr: 0.002}
    class_weights: balanced
    checkpoint_every: {seconds: 60} # or {steps: 100}

``lightwell train JOB.yaml --out DIR`` writes ``metrics.jsonl``, ``best.safetensors``, ``result.json`` and
``checkpoint.safetensors``; run again with the same ``--out`` it goes on after the step of its last checkpoint and ends
as if it had not been stopped, whatever the number of ranks before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...pipeline.jobs.contracts import Context, Feed, ResumePoint
from ...pipeline.plan.view import View
from ...pipeline.sampler.schedule import Schedule
from .spec import ClassifySpec


class Classify(ClassifySpec):
    """Train a classifier by transfer learning.

    As one of several ranks, that is where ``torch.distributed`` has a process group, it takes its slice of each batch
    and learns what one process would learn of the whole.
    """

    @property
    def view(self) -> View:
        """The training split, shuffled and augmented, for all epochs or passes; reads the index."""
        return View(
            split=self.train_split,
            shuffle=True,
            augment=True,
            num_epochs=self.feature_passes or self.epochs,
            drop_last=self.fine_tune_from is not None
            and self.drop_last_batch(len(self.plan.load_index().rows(self.train_split))),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files that are written."""
        from .checkpoint import BEST_NAME, LAST_NAME
        from .metrics_logger import METRICS_NAME, RESULT_NAME

        return (LAST_NAME, BEST_NAME, METRICS_NAME, RESULT_NAME)

    def resume_point(self, out: Path) -> ResumePoint:
        """Say what is still to be read, given what a run left in ``out``.

        Raises:
            PlanError: another job or plan has written there.
            ModelError: the checkpoint or the best weights are damaged.
        """
        from .checkpoint import BEST_NAME, read_metadata, read_tensors
        from .resume import read_resume_state

        view = self.view
        standing = read_resume_state(self, view, out)
        if standing.history:  # found now, and not when the last epoch is over
            read_metadata(out / BEST_NAME)
            read_tensors(out / BEST_NAME)
        return standing.resume_point(self, view)

    def check_ranks(self, num_ranks: int) -> None:
        """Check that so many ranks can share the job's batches.

        Raises:
            PlanError: they cannot.
        """
        index, view = self.check(), replace(self.view, num_ranks=num_ranks)
        Schedule.of(self.plan, view, index, index.rows(view.split))

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:
        """Learn, measure after every epoch, keep the best; go on with what ``context.out`` holds.

        Returns:
            ``best_epoch`` (counted from 0), ``epochs`` (finished), metrics of ``validation`` and ``test``, and
            ``checkpoint``, the path of the best weights.

        Raises:
            PlanError: the index has too few classes or lacks a split, or ``out`` holds another run.
            ModelError: the model or its weights cannot be had.
            RunError: the loss became infinite.
        """
        from .run import run_job

        return run_job(self, self.view, feed, context)
