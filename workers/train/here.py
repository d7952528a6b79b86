"""Trains in this process; the reference for training on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..local import run_training_job
from ..place import opened

if TYPE_CHECKING:
    from ...pipeline.jobs import Console, Engine, TrainingJob


@dataclass(frozen=True)
class LocalTrainer:
    """Runs a training job in this process, with results in a folder or below a URI."""

    engine: Engine

    def run(self, job: TrainingJob, out: str, console: Console) -> Mapping[str, Any]:
        """Run a training job to its end; returns its metrics. Raises as ``run_training_job`` does."""
        with opened(out) as place:
            return run_training_job(
                job, self.engine, place.folder, console, publish=place.publish, kept_at=place.kept_at
            )
