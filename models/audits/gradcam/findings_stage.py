"""The stage that turns candidates into findings: with their severity, their confirmation and advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Inputs, Process, Rows, Source
from ..findings.finding import SCHEMA, findings_batch, read_findings
from .confirmation import confirm_finding
from .dataset_measures import measures_fingerprint, read_dataset, restated_scores
from .records import FINDINGS, INTERVENTIONS, MAPS, SUSPECTS, TRUST, read_predictions
from .trust import judge
from .verdicts import VERDICT_VERSION, conclude

if TYPE_CHECKING:
    import pyarrow as pa

    from ..findings.finding import Finding
    from .config import AuditConfig


@dataclass(frozen=True)
class FindingsStage:
    """Findings, the most severe first."""

    audit: AuditConfig

    name = FINDINGS
    needs = (MAPS, TRUST, SUSPECTS, INTERVENTIONS)
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash the version of the rules, the seed of intervals and the audit of the dataset."""
        measures = measures_fingerprint(self.audit.dataset_audit)
        return fingerprint_of([VERDICT_VERSION, self.audit.plan.seed, *measures])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all candidates at once."""
        return Rows(SUSPECTS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that judges the candidates."""
        seed, interventions = self.audit.plan.seed, inputs[INTERVENTIONS]
        leaks = self._leaks(inputs[MAPS])
        is_trusted = judge(inputs[TRUST], inputs[MAPS], seed).trusted is not False

        def process(records: pa.Table) -> pa.RecordBatch:
            tested = [
                replace(each, confirmation=confirm_finding(each, interventions, seed))
                for each in read_findings(records)
            ]
            return findings_batch(conclude([*tested, *leaks], trusted=is_trusted))

        yield process

    def _leaks(self, maps: pa.Table) -> list[Finding]:
        if self.audit.dataset_audit is None:
            return []
        dataset = read_dataset(self.audit.dataset_audit, self.audit.plan.seed)
        return restated_scores(dataset, read_predictions(maps))
