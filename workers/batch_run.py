"""Run of a batch job: its stages, run or loaded one after the other, and its ``finish``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..pipeline.atomic_io import link_or_copy, write_json
from ..pipeline.errors import PlanError
from ..pipeline.jobs.contracts import Context
from ..pipeline.jobs.stages import PartWriter, finish_job
from ..pipeline.monitor.quarantine import QUARANTINE_NAME, write_quarantine
from ..pipeline.outputs.folder import is_pattern, matches
from .metrics import JobMeter
from .quarantine_log import QuarantineLog
from .record_store import RECORDS, Part, RecordStore
from .results import COUNTS_NAME, Results, declared_outputs, stage_folder
from .stage_runner import StageResult, load_finished, resume_parts, run_stage

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Console, Engine
    from ..pipeline.jobs.stages import AnyBatchJob, Stage


@dataclass(frozen=True)
class BatchRun:
    """A batch job in its output folder, with the results of the stages that are done."""

    job: AnyBatchJob
    engine: Engine
    results: Results
    console: Console
    keys: Mapping[str, str]
    """``NAME-FINGERPRINT`` of each stage by name."""
    done: dict[str, StageResult] = field(default_factory=dict)

    def store(self, stage: Stage) -> RecordStore:
        """Return the store of a stage's records."""
        folder = self.results.name(stage_folder(self.keys[stage.name]))
        return RecordStore(self.results.folder, folder, stage.schema)

    def load_stage(self, stage: Stage) -> bool:
        """Load the records of a finished stage; returns False if there are none, or damaged ones."""
        found = self.store(stage).load_finished() if stage.name in self.keys else None
        if found is None:
            return False
        total, records = found
        self.done[stage.name] = StageResult(records, total)
        return True

    def run_stage(self, stage: Stage, meter: JobMeter, part_images: int) -> None:
        """Run the rest of a stage, or load its records if it is finished.

        Args:
            stage: those that it needs are done.
            meter: metrics of the job.
            part_images: images per part.
        """
        store = self.store(stage)
        found = load_finished(store, stage, self.console)
        self.done[stage.name] = found or self._run_rest(stage, store, meter, part_images)

    def _run_rest(self, stage: Stage, store: RecordStore, meter: JobMeter, part_images: int) -> StageResult:
        job, results = self.job, self.results
        parts = resume_parts(store, stage, self.console)
        if isinstance(stage, PartWriter) and not parts:  # files of an earlier result are about to change
            stale = RecordStore.patterns(results.name(stage_folder(f"{stage.name}-*")))
            results.folder.remove(*(name for name in declared_outputs(job) if not is_pattern(name)))
            results.folder.remove(*(name for name in results.folder.owned if matches(name, stale)))
        inputs = {name: self.done[name].records for name in stage.needs}
        earlier = Part.total([*(result.total for result in self.done.values()), *parts])
        label = type(job).__name__ if len(self.keys) == 1 else f"{type(job).__name__}, {stage.name}"
        with QuarantineLog(results.claim(QUARANTINE_NAME), previous=earlier.quarantine) as log:
            return run_stage(
                stage, inputs, meter.instrument(log.record(self.engine)), store, self.console, parts,
                label=label, part_images=part_images, publish=results.output_store.publish,
            )  # fmt: skip

    def finish(self) -> Mapping[str, Any]:
        """Write counts and quarantine list, and call the job's ``finish``; returns its findings."""
        results = self.results
        first, *_ = self.done.values()
        entries = Part.total([result.total for result in self.done.values()]).quarantine
        counts = first.total.image_counts()
        write_quarantine(entries, results.claim(QUARANTINE_NAME))
        write_json(results.claim(COUNTS_NAME), counts)
        results.folder.claim(*(name for name in declared_outputs(self.job) if not is_pattern(name)))
        context = Context(
            self.engine,
            results.path,
            self.console,
            quarantine=entries,
            counts=counts,
            destination=results.output_store.destination,
            export_records=self._export_records,
        )
        return finish_job(self.job, {name: result.records for name, result in self.done.items()}, context)

    def _export_records(self, stage: str, name: str) -> None:
        """Put the records of a stage into a file of the output folder."""
        if stage not in self.keys:
            raise PlanError(
                f"{type(self.job).__name__}: export_records: expected one of its stages ({', '.join(self.keys)}), got {stage!r}; "
                "correct the name"
            )
        source = self.results.path / self.results.name(f"{stage_folder(self.keys[stage])}/{RECORDS}")
        self.results.folder.claim(name)
        link_or_copy(source, self.results.path / name)
