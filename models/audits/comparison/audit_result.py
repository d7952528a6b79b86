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
from ..dataset.summary import FINDINGS_VERSION as DATASET_VERSION
from ..findings.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORDS_NAME = "records.parquet"
_MODEL_COLUMNS = ("key", "label", "known", "prediction")
_DATASET_COLUMNS = ("key", "class")
_MODEL_FACTS = (
    ("classes",),
    ("index", "fingerprint"),
    ("index", "name"),
    ("accuracy",),
    ("title",),
    ("model", "name"),
    ("weights_report", "source"),
    ("split",),
    ("plan_fingerprint",),
)
_DATASET_FACTS = (("classes",), ("index_fingerprint",), ("title",), ("split",), ("num_usable",))
"""Where the values of findings.json are that a comparison reads."""
_TRUST = {True: "trusted", False: "not trustworthy", None: "not checked"}


@dataclass(frozen=True)
class AuditResult:
    """Findings of an audit, and for each image its label and whether a model's prediction is correct."""

    facts: Mapping[str, Any]
    """The content of findings.json."""
    findings: tuple[Finding, ...]
    keys: NDArray[np.object_]
    labels: NDArray[np.int64]
    """Class number, -1 without a label or with one that the model does not have."""
    right: NDArray[np.bool_] | None
    """None for the audit of a dataset."""
    classes: tuple[str, ...] = ()
    """Names by class number."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read findings.json and records.parquet of an audit's folder.

        Raises:
            RequestError: the folder has no finished audit, or one of an older version.
        """
        import pyarrow as pa

        from ..gradcam.findings import FINDINGS_VERSION

        try:
            facts = json.loads((folder / "findings.json").read_bytes())
            version = facts["findings_version"]
            is_dataset = "num_usable" in facts
            current = DATASET_VERSION if is_dataset else FINDINGS_VERSION
            if version == current:
                read = cls._read_dataset if is_dataset else cls._read_model
                return read(facts, folder / RECORDS_NAME)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            raise RequestError(
                f"expected the folder of a finished audit, got {quoted(str(folder))} ({type(error).__name__}: "
                f"{' '.join(str(error).split())}); name the --out of `lightwell audit` or `lightwell inspect`"
            ) from error
        raise RequestError(
            f"expected findings of version {current} in {quoted(str(folder))}, got {version}; run the audit again"
        )

    @classmethod
    def _read_model(cls, facts: Mapping[str, Any], path: Path) -> Self:
        import pyarrow.parquet as pq

        _look_up(facts, _MODEL_FACTS)
        for entry in facts["per_class"]:
            _ = entry["class"], entry["border_mass"]
        records = pq.read_table(path, columns=list(_MODEL_COLUMNS))
        known = np.asarray(records["known"].to_pylist(), np.bool_)
        labels = records["label"].to_numpy()
        return cls(
            facts,
            _findings(facts),
            np.asarray(records["key"].to_pylist(), dtype=object),
            np.where(known, labels, -1),
            known & (labels == records["prediction"].to_numpy()),
            tuple(facts["classes"]),
        )

    @classmethod
    def _read_dataset(cls, facts: Mapping[str, Any], path: Path) -> Self:
        import pyarrow.parquet as pq

        _look_up(facts, _DATASET_FACTS)
        records = pq.read_table(path, columns=list(_DATASET_COLUMNS))
        names = records["class"].to_pylist()
        classes = tuple(sorted({name for name in names if name is not None}))
        numbers = {name: number for number, name in enumerate(classes)}
        return cls(
            facts,
            _findings(facts),
            np.asarray(records["key"].to_pylist(), dtype=object),
            np.asarray([numbers.get(name, -1) for name in names], np.int64),
            None,
            classes,
        )

    @property
    def index_fingerprint(self) -> str:
        """Fingerprint of the index of its images."""
        value = self.facts["index_fingerprint"] if self.right is None else self.facts["index"]["fingerprint"]
        return str(value)

    @property
    def provenance(self) -> dict[str, str]:
        """Model, data and plan of the audit, by name."""
        facts = self.facts
        split = facts["split"] or "all"
        if self.right is None:
            return {"split": split, "index": f"fingerprint {self.index_fingerprint}"}
        return {
            "model": facts["model"]["name"],
            "weights": facts["weights_report"]["source"],
            "split": split,
            "index": f"{facts['index']['name']}, fingerprint {self.index_fingerprint}",
            "plan": facts["plan_fingerprint"],
            "maps": _TRUST[(facts.get("trust") or {}).get("trusted")],
        }


def _findings(facts: Mapping[str, Any]) -> tuple[Finding, ...]:
    return tuple(map(Finding.from_dict, facts["findings"]))


def _look_up(facts: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> None:
    """Look up every value that a comparison reads, so that a damaged file is refused here."""
    for names in paths:
        value: Any = facts
        for name in names:
            value = value[name]
