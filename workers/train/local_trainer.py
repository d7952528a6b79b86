"""Training in this process; the reference for training on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..local import run_training_job

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Console, Engine, TrainingJob


@dataclass(frozen=True)
class LocalTrainer:
    """Runs a training job in this process, with results in a folder or below a URI."""

    engine: Engine

    def run(
        self, job: TrainingJob, out: Path | str, console: Console, *, reads: Sequence[Path | str] = ()
    ) -> Mapping[str, Any]:
        """Run a training job to its end; returns its metrics. Raises like ``run_training_job``."""
        return run_training_job(job, self.engine, out, console, reads=reads)
