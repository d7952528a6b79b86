"""Batch job that evaluates a checkpoint on a labelled split: metrics with intervals, calibration and errors by class.

A job file::

    job: evaluate
    plan: plan.yaml
    checkpoint: train/best.safetensors
    split: test
    tta: flip                       # or a number of augmented views; default: none

Its scores are those of the job ``predict``, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ...pipeline.errors import RunError
from ...pipeline.jobs.stages import SINGLE_STAGE
from .config import ScoringJob

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Context
    from ...pipeline.jobs.stages import Inputs
    from ..training.checkpoint import CheckpointMetadata

RESULT_NAME = "evaluation.json"
RESULT_VERSION = 1


class Evaluate(ScoringJob):
    """Evaluate a checkpoint on a split; write evaluation.json, predictions and figures."""

    split: str | None = "test"
    """None evaluates all images."""
    bootstrap: int = Field(default=1000, ge=0, le=100_000)
    """Bootstrap samples of the intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""

    evaluates: ClassVar[bool] = True

    def fingerprint(self) -> str:
        """Hash what determines the records; see ``ScoringJob``.

        Raises:
            ModelError: the checkpoint cannot be evaluated.
            PlanError: the index has another kind of labels.
        """
        from .evaluation.classes import check_kind_of_labels
        from .masks.stage import segmentation_task
        from .outputs import read_trained

        metadata, index = read_trained(self.checkpoint), self.plan.load_index()
        if self.segments:
            segmentation_task(metadata, index)
        else:
            check_kind_of_labels(index, metadata.task)
        return super().fingerprint()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        from .evaluation.one_class import CONFUSION_NAME, RELIABILITY_NAME
        from .outputs import ONE_CLASS, SEGMENTATION, read_trained
        from .table import CSV_NAME, PARQUET_NAME, SCORES_NAME

        task = read_trained(self.checkpoint).task
        own = () if task == SEGMENTATION else (SCORES_NAME,)
        figures = (CONFUSION_NAME, RELIABILITY_NAME) if task == ONE_CLASS else ()
        return (RESULT_NAME, PARQUET_NAME, CSV_NAME, *own, *figures)

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write metrics, predictions and figures; return the metrics.

        Raises:
            RunError: no labelled image could be used.
            PlanError: the index has none of the checkpoint's classes.
            OutputError: a file cannot be written.
        """
        from ...pipeline.atomic_io import write_json
        from .outputs import read_trained

        metadata = read_trained(self.checkpoint)
        evaluate = self._evaluate_masks if self.segments else self._evaluate_classes
        found = evaluate(records, metadata, context)
        result = {
            "version": RESULT_VERSION,
            "task": metadata.task,
            "split": self.split,
            "tta": self.tta,
            **found,
            "bootstrap": {"samples": self.bootstrap, "seed": self.seed, "level": 0.95},
        }
        write_json(context.out / RESULT_NAME, result)
        return result

    def _evaluate_masks(
        self, records: Inputs, metadata: CheckpointMetadata, context: Context
    ) -> dict[str, Any]:
        from .evaluation.masks import has_labelled_pixels, masks_result
        from .masks.stage import MASKS
        from .masks.table import MaskTable

        table = MaskTable.of(self, records[MASKS], metadata.classes, context.quarantine)
        self._check_labelled(has_labelled_pixels(table.records))
        table.write(context.out)
        found = masks_result(table.records, metadata.classes, num_samples=self.bootstrap, seed=self.seed)
        return {**found, "unusable": len(table.failed), "warnings": []}

    def _evaluate_classes(
        self, records: Inputs, metadata: CheckpointMetadata, context: Context
    ) -> dict[str, Any]:
        from .evaluation.classes import match_label_sets, match_labels
        from .evaluation.label_sets import label_sets_result
        from .evaluation.one_class import one_class_result, write_one_class_figures
        from .table import SCORES_NAME, ScoreTable

        context.export_records(SINGLE_STAGE, SCORES_NAME)
        table = ScoreTable.of(self, records[SINGLE_STAGE], metadata, context.quarantine)
        index = self.plan.load_index()
        if table.outputs.several:
            sets = table.label_sets(len(index.classes))
            truth, notes = match_label_sets(sets, index.classes, metadata.classes)
            self._check_labelled(bool((truth >= 0).any()))
            found = label_sets_result(table, truth, num_samples=self.bootstrap, seed=self.seed)
        else:
            labels, notes = match_labels(table.labels, index.classes, metadata.classes)
            self._check_labelled(bool((labels >= 0).any()))
            found = one_class_result(table, labels, num_samples=self.bootstrap, seed=self.seed)
        table.write(context.out)
        if not table.outputs.several:
            write_one_class_figures(context.out, table, found)
        return {**found, "unusable": len(table.failed), "warnings": notes}

    def _check_labelled(self, is_any: bool) -> None:
        if not is_any:
            raise RunError(
                f"evaluate: expected labelled images in {self.split or 'the index'!r} that can be read, got none; "
                "see quarantine.jsonl, or use `lightwell predict` for images without labels"
            )
