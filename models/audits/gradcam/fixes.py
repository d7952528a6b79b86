"""The fix list of an audit: images that show a finding, to be looked at before an index is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from ..dataset.checks.fixes import FIX_SCHEMA, FixRow
from ..findings.finding import SCHEMA, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .suspects.image_table import ImageTable

SUSPECT_SCHEMA = pa.schema([*SCHEMA, ("fixes", pa.list_(pa.struct(list(FIX_SCHEMA))))])
"""Findings, each with the rows that it would add to the fix list."""


def suspect_fixes(table: ImageTable, finding: Finding, known_classes: Sequence[str]) -> list[FixRow]:
    """Return a row for each image that shows a finding: with a class, or without one where the image may be left out.

    Args:
        table: in which the finding was made.
        finding: with the keys of all its images; only those about single images have rows.
        known_classes: of the index; no other class is suggested.
    """
    if finding.kind == "suspected_label":
        found = table.suspected_labels
        numbers = [] if found is None else found.suggested.tolist()
        classes = [table.name_of(number) for number in numbers]
        reasons = [f"looks like {name}" for name in classes]
    elif finding.kind == "confident_error":
        classes = [finding.class_name or ""] * len(finding.keys)
        reasons = [f"predicted as {finding.class_name} with confidence"] * len(finding.keys)
    elif finding.region is not None:
        classes = [""] * len(finding.keys)
        reasons = [f"a suspected mark of {finding.class_name}: {finding.region.name}"] * len(finding.keys)
    else:
        return []
    return [
        FixRow(key, "review", name if name in known_classes else "", reason, finding.id)
        for key, name, reason in zip(finding.keys, classes, reasons, strict=True)
    ]


def collect_fixes(suspects: pa.Table, findings: Iterable[Finding]) -> list[FixRow]:
    """Return the fix list of findings, one row per image; regions that are a note only are left out.

    Args:
        suspects: of `SUSPECT_SCHEMA`, from which the findings were made.
        findings: those before take precedence.
    """
    rows = dict(zip(suspects["id"].to_pylist(), suspects["fixes"].to_pylist(), strict=True))
    chosen: dict[str, FixRow] = {}
    for finding in findings:
        if finding.region is None or finding.severity != "note":
            for row in rows.get(finding.id, ()):
                chosen.setdefault(row["key"], FixRow(**row))
    return list(chosen.values())
