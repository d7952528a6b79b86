"""The stage that searches the records of the maps for candidate findings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ....pipeline.index.groups import group_values
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Inputs, Process, Rows, Source
from ..findings.finding import MAX_KEYS
from .audited_model import match_audited_classes
from .dataset_measures import measured_columns, measures_fingerprint, read_dataset
from .fixes import SUSPECT_SCHEMA, suspect_fixes
from .records import MAPS, SUSPECTS
from .suspects.image_table import FACTS, read_image_table
from .suspects.search import SEARCH_VERSION, search_all
from .suspects.traits import describe_findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .config import AuditConfig


@dataclass(frozen=True)
class SuspectStage:
    """Candidate findings, from all maps at once."""

    audit: AuditConfig

    name = SUSPECTS
    needs = (MAPS,)
    schema = SUSPECT_SCHEMA

    def fingerprint(self) -> str:
        """Hash what determines the candidates, besides the maps."""
        groups = group_values(self.audit.plan.load_index().table, self.audit.groups)
        facts = [SEARCH_VERSION, self.audit.plan.seed, self.audit.class_map, groups]
        return fingerprint_of([*facts, *measures_fingerprint(self.audit.dataset_audit)])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return all maps at once."""
        return Rows(MAPS)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that searches all records."""
        yield self._search

    def _search(self, records: pa.Table) -> pa.RecordBatch:
        if not records.num_rows:
            return pa.RecordBatch.from_pylist([], schema=SUSPECT_SCHEMA)
        facts = json.loads(records["model"][0].as_py())
        match = match_audited_classes(self.audit, int(facts["num_outputs"]))
        table = read_image_table(records, match, self.audit.plan.seed)
        keys = table.keys.tolist()
        table = replace(table, facts={**self._measured_facts(keys), **table.facts, **self._group_facts(keys)})
        found, known_classes = search_all(table), match.names[: match.num_index]
        rows = [
            replace(said, keys=said.keys[:MAX_KEYS]).to_dict()
            | {"fixes": [asdict(fix) for fix in suspect_fixes(table, each, known_classes)]}
            for said, each in zip(describe_findings(found, table), found, strict=True)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=SUSPECT_SCHEMA)

    def _measured_facts(self, keys: list[str]) -> dict[str, NDArray[Any]]:
        """Return the measures of an audit of the dataset, if there is one."""
        if self.audit.dataset_audit is None:
            return {}
        dataset = read_dataset(self.audit.dataset_audit, self.audit.plan.seed)
        return measured_columns(dataset, keys)

    def _group_facts(self, keys: list[str]) -> dict[str, NDArray[Any]]:
        """Return the columns of ``groups`` for some images: numbers where all cells are, else texts."""
        if not self.audit.groups:
            return {}
        index = self.audit.plan.load_index().table
        row_of = {key: row for row, key in enumerate(index["key"].to_pylist())}
        rows = [row_of[key] for key in keys]
        found = {}
        for name, values in group_values(index, self.audit.groups).items():
            known = f"{name} (table)" if name in (*FACTS, "prediction") else name
            found[known] = group_array([values[row] for row in rows])
        return found


def group_array(texts: Sequence[str | None]) -> NDArray[Any]:
    """Return texts as an array, of numbers (NaN for none) where all are plain numbers, else of texts."""
    try:
        values = np.array([np.nan if text is None else float(text) for text in texts])
    except ValueError:
        values = np.array([np.inf])
    if np.isinf(values).any() or any(
        text is not None and text[0] == "0" and text[1:2].isdigit() for text in texts
    ):
        return np.array(["unknown" if text is None else text for text in texts], object)
    return values
