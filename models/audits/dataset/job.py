"""Dataset audit job: findings about the files, images, labels and splits of an index, before any model.

A job file::

    job: inspect
    plan: plan.yaml
    split: null         # all
    model: {name: resnet50}    # optional: for checks of features, or  checkpoint: train/best.safetensors

``lightwell inspect inspect.yaml --out DIR`` writes report.html, findings.json, records.parquet, fixes.csv, a dataset card
(README.md) and a description for machines (croissant.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.plan.plan import Plan
from ...zoo.build import ModelSpec
from .records import CHECKS, FINDINGS, FIXES, PICTURES, RECORDS, RECORDS_SCHEMA

if TYPE_CHECKING:
    from ....pipeline.jobs.contracts import Context
    from ....pipeline.jobs.stages import Inputs, Stage


class DatasetAudit(CheckedModel):
    """Check the files, images, labels and splits of an index."""

    plan: Plan
    """Its index is read, under its ``errors``."""
    split: str | None = None
    """None inspects all images."""
    model: ModelSpec | None = None
    """A pretrained network whose features find suspected labels, more near duplicates and the learning curve; None skips these."""
    checkpoint: Path | None = None
    """A checkpoint of ``lightwell train``, whose network is used instead of a pretrained one."""
    title: str = "Dataset audit"

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.model is not None and self.checkpoint is not None:
            raise ValueError(
                "expected at most one of model and checkpoint, got both; give checkpoint: PATH for your own model, or model: "
                "{name: NAME} for a pretrained one"
            )
        return self

    @property
    def has_network(self) -> bool:
        """Whether there is a network for checks of features."""
        return self.model is not None or self.checkpoint is not None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Measures of files and of images, their join, checks, findings and fix list."""
        from .stages import stages_of_audit

        return stages_of_audit(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        return (
            "report.html",
            "findings.json",
            "findings.parquet",
            "records.parquet",
            "fixes.csv",
            "README.md",
            "croissant.json",
        )

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write the results; return the findings.

        Raises:
            OutputError: a file cannot be written.
        """
        import hashlib

        from ....pipeline.atomic_io import write_json, write_text
        from ..findings.finding import read_findings
        from .checks.fixes import FixRow
        from .fix_list import write_fixes
        from .report.croissant import RECORDS_FILE, croissant_document
        from .report.dataset_card import dataset_card
        from .report.page import write_report

        found = read_findings(records[FINDINGS])
        fixes = [FixRow(**row) for row in records[FIXES].to_pylist()]
        findings = {
            "title": self.title,
            "findings": [finding.to_dict() for finding in found],
            **json.loads(records[CHECKS]["summary"][0].as_py()),
            "split": self.split,
            "num_fixes": len(fixes),
            "num_quarantined": len({entry["key"] for entry in context.quarantine}),
        }
        context.export_records(RECORDS, RECORDS_FILE)
        context.export_records(FINDINGS, "findings.parquet")
        write_fixes(fixes, context.out / "fixes.csv")
        write_report(findings, found, records[RECORDS], records[PICTURES], context.out / "report.html")
        with (context.out / RECORDS_FILE).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described = croissant_document(self.title, findings, found, RECORDS_SCHEMA, digest)
        write_json(context.out / "croissant.json", described)
        write_text(context.out / "README.md", dataset_card(self.title, findings, found))
        write_json(context.out / "findings.json", findings)
        return findings
