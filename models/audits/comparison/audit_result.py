"""The part of a finished audit that a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ....pipeline.errors import RequestError
from ....pipeline.text import quoted
from ..findings.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = ["key", "label", "known", "prediction"]
_READ = (
    ("classes",),
    ("index", "fingerprint"),
    ("accuracy",),
    ("title",),
    ("model", "name"),
    ("weights_report", "source"),
    ("split",),
    ("plan_fingerprint",),
)
"""Where the values of findings.json are that a comparison reads."""


@dataclass(frozen=True)
class AuditResult:
    """Findings of an audit, and for each image whether the prediction is correct."""

    facts: Mapping[str, Any]
    """The content of findings.json."""
    findings: tuple[Finding, ...]
    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    """Class number, -1 without a label or with one that the model does not have."""
    right: NDArray[np.bool_]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read findings.json and records.parquet of an audit's folder.

        Raises:
            RequestError: the folder has no finished audit, or one of an older version.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        from ..gradcam.findings import FINDINGS_VERSION
        from ..gradcam.records import RECORDS_NAME

        try:
            facts = json.loads((folder / "findings.json").read_bytes())
            version = facts["findings_version"]
            records = pq.read_table(folder / RECORDS_NAME, columns=_COLUMNS)
            findings = () if version != FINDINGS_VERSION else _read_findings(facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            raise RequestError(
                f"expected the folder of a finished audit, got {quoted(str(folder))} ({type(error).__name__}: "
                f"{' '.join(str(error).split())}); name the --out of `lightwell audit`"
            ) from error
        if version != FINDINGS_VERSION:
            raise RequestError(
                f"expected findings of version {FINDINGS_VERSION} in {quoted(str(folder))}, got {version}; "
                "run the audit again"
            )
        known = np.asarray(records["known"].to_pylist(), np.bool_)
        labels = np.where(known, records["label"].to_numpy(), -1)
        return cls(
            facts,
            findings,
            np.asarray(records["key"].to_pylist(), dtype=object),
            labels,
            known & (records["label"].to_numpy() == records["prediction"].to_numpy()),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the index's classes by number."""
        return tuple(self.facts["classes"])


def _read_findings(facts: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Read the findings, and look up every value that a comparison reads, so that a damaged file is refused here."""
    for names in _READ:
        value: Any = facts
        for name in names:
            value = value[name]
    for entry in facts["per_class"]:
        _ = entry["class"], entry["border_mass"]
    return tuple(map(Finding.from_dict, facts["findings"]))
