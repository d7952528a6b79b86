"""The stage that searches the records of the maps for candidate findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Inputs, Process, Rows, Source
from ..findings.finding import SCHEMA, findings_batch
from .audited_model import match_audited_classes
from .records import MAPS, SUSPECTS
from .suspects.search import SEARCH_VERSION, find_suspects

if TYPE_CHECKING:
    import pyarrow as pa

    from .config import AuditConfig


@dataclass(frozen=True)
class SuspectStage:
    """Candidate findings, from all maps at once."""

    audit: AuditConfig

    name = SUSPECTS
    needs = (MAPS,)
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the candidates, besides the maps."""
        return fingerprint_of([SEARCH_VERSION, self.audit.plan.seed, self.audit.class_map])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all maps at once."""
        return Rows(MAPS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that searches all records."""
        yield self._search

    def _search(self, records: pa.Table) -> pa.RecordBatch:
        from .suspects.image_table import read_image_table

        if not records.num_rows:
            return findings_batch([])
        facts = json.loads(records["model"][0].as_py())
        match = match_audited_classes(self.audit, int(facts["num_outputs"]))
        return findings_batch(find_suspects(read_image_table(records, match, self.audit.plan.seed)))
