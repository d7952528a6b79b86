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
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...pipeline.errors import RunError
from .config import ScoringJob

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.jobs.contracts import Context

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

    def fingerprint(self) -> str:
        """Hash what determines the records; see ``ScoringJob``.

        Raises:
            ModelError: the checkpoint cannot be evaluated.
            PlanError: the index has another kind of labels.
        """
        from .evaluation.classes import check_kind_of_labels
        from .outputs import read_classifier

        check_kind_of_labels(self.plan.load_index(), read_classifier(self.checkpoint).task)
        return super().fingerprint()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        from .evaluation.one_class import CONFUSION_NAME, RELIABILITY_NAME
        from .outputs import ONE_CLASS, read_classifier
        from .table import CSV_NAME, PARQUET_NAME

        is_one = read_classifier(self.checkpoint).task == ONE_CLASS
        return (RESULT_NAME, PARQUET_NAME, CSV_NAME, *((CONFUSION_NAME, RELIABILITY_NAME) if is_one else ()))

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write metrics, predictions and figures; return the metrics.

        Raises:
            RunError: no labelled image could be used.
            PlanError: the index has none of the checkpoint's classes.
            OutputError: a file cannot be written.
        """
        from ...pipeline.atomic_io import write_json
        from .evaluation.classes import match_label_sets, match_labels
        from .evaluation.label_sets import label_sets_result
        from .evaluation.one_class import one_class_result, write_one_class_figures
        from .outputs import read_classifier
        from .table import ScoreTable

        metadata = read_classifier(self.checkpoint)
        table = ScoreTable.of(self, records, metadata, context.quarantine)
        index = self.plan.load_index()
        options = {"num_samples": self.bootstrap, "seed": self.seed}
        if table.outputs.several:
            sets = table.label_sets(len(index.classes))
            truth, notes = match_label_sets(sets, index.classes, metadata.classes)
            self._check_labelled(bool((truth >= 0).any()))
            found = label_sets_result(table, truth, **options)
        else:
            labels, notes = match_labels(table.labels, index.classes, metadata.classes)
            self._check_labelled(bool((labels >= 0).any()))
            found = one_class_result(table, labels, **options)
        table.write(context.out)
        if not table.outputs.several:
            write_one_class_figures(context.out, table, found)
        result = {
            "version": RESULT_VERSION,
            "task": metadata.task,
            "split": self.split,
            "tta": self.tta,
            **found,
            "unusable": len(table.failed),
            "bootstrap": {"samples": self.bootstrap, "seed": self.seed, "level": 0.95},
            "warnings": notes,
        }
        write_json(context.out / RESULT_NAME, result)
        return result

    def _check_labelled(self, is_any: bool) -> None:
        if not is_any:
            raise RunError(
                f"evaluate: expected labelled images in {self.split or 'the index'!r} that can be read, got none; "
                "see quarantine.jsonl, or use `lightwell predict` for images without labels"
            )
