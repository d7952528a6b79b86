"""Batch job that predicts the class or the mask of every image of an index, labelled or not.

A job file::

    job: predict
    plan: plan.yaml
    checkpoint: train/best.safetensors

``lightwell predict train/best.safetensors photos --out predictions`` needs neither a plan nor a job file: the checkpoint
holds its preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...pipeline.jobs.stages import SINGLE_STAGE
from .config import ScoringJob

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Context
    from ...pipeline.jobs.stages import Inputs


class Predict(ScoringJob):
    """Predict every image of a split; write predictions.parquet and predictions.csv, and the masks of a segmentation network."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        from .masks.stage import MASKS
        from .table import CSV_NAME, PARQUET_NAME, SCORES_NAME

        return (PARQUET_NAME, CSV_NAME, f"{MASKS}/*.png" if self.segments else SCORES_NAME)

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write the predictions; return the numbers of images, in all and by class, or the share of each class.

        Raises:
            OutputError: a file cannot be written.
        """
        from ...pipeline.compiler.program import Program
        from .masks.geometry import MaskGeometry
        from .masks.stage import MASKS
        from .masks.table import MaskTable
        from .outputs import read_classifier, read_trained
        from .table import SCORES_NAME, ScoreTable

        if self.segments:
            metadata = read_trained(self.checkpoint)
            masks = MaskTable.of(self, records[MASKS], metadata.classes, context.quarantine)
            masks.write(context.out)
            obstacle = MaskGeometry(Program.compile(self.plan)).obstacle
            note = f"masks have the size of the network's images: {obstacle} cannot be undone"
            return {**masks.summary(), "warnings": [note] if obstacle else []}
        context.export_records(SINGLE_STAGE, SCORES_NAME)
        table = ScoreTable.of(
            self, records[SINGLE_STAGE], read_classifier(self.checkpoint), context.quarantine
        )
        table.write(context.out)
        return table.summary()
