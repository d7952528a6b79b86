"""Batch job that predicts the class of every image of an index, labelled or not.

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

from .config import ScoringJob

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.jobs.contracts import Context


class Predict(ScoringJob):
    """Predict every image of a split; write predictions.parquet and predictions.csv."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        from .table import CSV_NAME, PARQUET_NAME

        return (PARQUET_NAME, CSV_NAME)

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write the predictions; return the numbers of images, in all and by class.

        Raises:
            OutputError: a file cannot be written.
        """
        from .outputs import read_classifier
        from .table import ScoreTable

        table = ScoreTable.of(self, records, read_classifier(self.checkpoint), context.quarantine)
        table.write(context.out)
        return table.summary()
