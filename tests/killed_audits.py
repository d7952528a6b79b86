"""Audits whose process is killed once in each stage that has a trap; other processes and Ray workers import this module."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.pipeline.jobs.progress import SilentConsole

STAGES = ("trust", "suspects", "interventions", "opinions")
"""With a trap; the others have the same mechanism."""


@dataclass(frozen=True)
class Trapped:
    """A stage that kills its process after the first item while its trap exists, which it removes."""

    stage: Any
    trap: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("stage", "trap"):
            raise AttributeError(name)
        return getattr(self.stage, name)

    @contextmanager
    def open(self, inputs: Any) -> Iterator[Any]:
        with self.stage.open(inputs) as process:

            def work(item: Any) -> Any:
                records = process(item)
                if self.trap.exists():
                    self.trap.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                return records

            yield work


class TrappedAudit(GradCamAudit):
    """An audit with traps, files named like stages."""

    traps: Path

    @property
    def stages(self) -> Any:
        return tuple(Trapped(stage, self.traps / stage.name) for stage in super().stages)


TrappedAudit.__name__ = GradCamAudit.__name__
"""Same name, so that it accepts the same folder."""


def options(plan: Plan, checkpoint: Path) -> dict[str, Any]:
    """Return the options of an audit with all stages but overlays and calibration."""
    small: dict[str, Any] = {"gallery": 2, "trust_images": 12, "interventions": 4}
    return {"plan": plan, "checkpoint": checkpoint, "second_opinions": ("integrated_gradients",), **small}


def set_traps(folder: Path) -> Path:
    """Write a trap for each stage."""
    folder.mkdir()
    for stage in STAGES:
        (folder / stage).touch()
    return folder


def audit(plan: Plan, checkpoint: Path, traps: Path, out: Path) -> None:
    """Run an audit with traps in this process."""
    job = TrappedAudit(**options(plan, checkpoint), traps=traps)
    run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
