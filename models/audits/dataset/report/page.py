"""HTML page of a dataset audit: a single file without external resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .....pipeline.atomic_io import write_text
from ....report.finding_text import KIND_NAMES, chance_text, effect_text
from ....report.html import render_page
from ....report.versions import versions
from ...findings.finding import SEVERITIES
from ..picture_stage import MAX_SHOWN, num_compared, shown_findings
from ..summary import normalize_yaml
from .class_rows import class_rows
from .gallery import Shot, shots_of, take_shots
from .histograms import HEIGHT, WIDTH, draw_histograms

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from ...findings.finding import Finding

MAX_ROWS = 100
"""Classes that the page lists; all are in findings.json."""
MAX_LISTED = 500
"""Findings without thumbnails that are listed; all are in findings.json."""


@dataclass(frozen=True, slots=True)
class Card:
    """A finding with its numbers as text and its thumbnails."""

    finding: Finding
    kind: str
    effect: str
    by_chance: str
    images: tuple[Shot, ...]
    others: tuple[Shot, ...]
    """Images to compare with."""
    status: str = ""
    interventions: tuple[tuple[str, str], ...] = ()


def write_report(
    findings: Mapping[str, Any],
    found: Sequence[Finding],
    records: pa.Table,
    pictures: pa.Table,
    path: Path,
) -> None:
    """Write the page of an audit.

    Args:
        findings: the content of findings.json.
        found: the findings, the most severe first.
        records: of the stage ``records``.
        pictures: records of the stage ``pictures``.
        path: of the page.

    Raises:
        OutputError: the file cannot be written.
    """
    shots = take_shots(pictures, records, found)
    counts = Counter(finding.severity for finding in found)
    shown = shown_findings(found)
    ids = {finding.id for finding in shown}
    others = [finding for finding in found if finding.id not in ids]
    statistics = findings["normalize"]
    write_text(
        path,
        render_page(
            __package__,
            "page.html",
            "page.js",
            title=findings["title"],
            facts=findings,
            num_unusable=findings["num_images"] - findings["num_usable"],
            severities=[(name, counts[name]) for name in SEVERITIES],
            found=[_card(finding, shots) for finding in shown],
            listed=[(each, effect_text(each.effect)) for each in others[:MAX_LISTED]],
            num_unlisted=max(0, len(others) - MAX_LISTED),
            histograms=draw_histograms(findings["distributions"], found, records),
            size=(WIDTH, HEIGHT),
            classes=class_rows(findings, found, records)[:MAX_ROWS],
            num_classes_left_out=max(0, len(findings["classes"]) - MAX_ROWS),
            shares=[(name, shares_of(findings[name])) for name in ("splits", "formats") if findings[name]],
            shots=list(shots.values()),
            gallery_classes=sorted({shot.label for shot in shots.values()} - {""}),
            gallery_splits=sorted({shot.split for shot in shots.values()} - {""}),
            kind_names=KIND_NAMES,
            gallery_kinds=sorted({each.kind for shot in shots.values() for each in shot.findings}),
            normalize=None if statistics is None else normalize_yaml(statistics),
            version=versions()["lightwell"],
        ),
    )


def _card(finding: Finding, shots: Mapping[str, Shot]) -> Card:
    return Card(
        finding=finding,
        kind=KIND_NAMES[finding.kind],
        effect=effect_text(finding.effect),
        by_chance=chance_text(finding),
        images=shots_of(finding.keys, shots, MAX_SHOWN),
        others=shots_of(finding.other_keys, shots, num_compared(finding)),
    )


def shares_of(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """Return name, number and share of all of the most frequent values."""
    total = sum(counts.values())
    return [(name, count, count / total) for name, count in list(counts.items())[:MAX_ROWS]]
