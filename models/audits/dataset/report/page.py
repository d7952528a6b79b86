"""HTML page of a dataset audit: a single file without external resources."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .....pipeline.atomic_io import write_text
from ....report.html import page_style, template_environment
from ...findings.finding import SEVERITIES
from ...gradcam.report.finding_cards import chance_text, effect_text
from ..picture_stage import MAX_SHOWN
from ..summary import normalize_yaml

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from ...findings.finding import Finding

MAX_ROWS = 100
"""Classes that the page lists; all are in findings.json."""
KIND_NAMES = {
    "unreadable": "Files that cannot be read",
    "odd_file": "Odd files",
    "quality": "Image quality",
    "exact_duplicate": "Copies",
    "near_duplicate": "Near duplicates",
    "leakage": "Leakage between splits",
    "class_balance": "Class balance",
    "drift": "Differences between splits",
    "suspected_label": "Suspected wrong labels",
    "predictive_property": "Properties that predict the class",
    "sample_order": "Order of the images",
    "learning_curve": "More images",
    "plan_effect": "What the plan does",
    "preprocessing": "Preprocessing",
}
WIDTH, HEIGHT = 240, 64
"""Size of a histogram in units of its drawing."""


@dataclass(frozen=True, slots=True)
class Card:
    """A finding with its texts and thumbnails."""

    finding: Finding
    kind: str
    effect: str
    by_chance: str
    pictures: tuple[tuple[str, str], ...]
    """Key and data URI of each."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of a histogram."""

    name: str
    low: str
    high: str
    median: str
    bars: tuple[tuple[float, float, float], ...]
    """x, y and height of each."""
    bar_width: float


def write_report(
    findings: Mapping[str, Any], found: Sequence[Finding], pictures: pa.Table, path: Path
) -> None:
    """Write the page of an audit.

    Args:
        findings: the content of findings.json.
        found: the findings, the most severe first.
        pictures: records of the stage ``pictures``.
        path: of the page.

    Raises:
        OutputError: the file cannot be written.
    """
    statistics = findings["normalize"]
    images = {
        key: f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
        for key, data in zip(pictures["key"].to_pylist(), pictures["jpeg"].to_pylist(), strict=True)
    }
    counts = Counter(finding.severity for finding in found)
    text = (
        template_environment(__package__)
        .get_template("inspect.html")
        .render(
            style=page_style(),
            title=findings["title"],
            facts=findings,
            severities=[(name, counts[name]) for name in SEVERITIES],
            counts=[
                (name, list(findings[name].items())[:MAX_ROWS], max(findings[name].values(), default=1))
                for name in ("classes", "splits", "formats")
            ],
            cards=[_card(finding, images) for finding in found],
            histograms=[histogram(name, each) for name, each in findings["distributions"].items()],
            normalize=None if statistics is None else normalize_yaml(statistics),
            size=(WIDTH, HEIGHT),
        )
    )
    write_text(path, text)


def _card(finding: Finding, images: Mapping[str, str]) -> Card:
    return Card(
        finding,
        KIND_NAMES.get(finding.kind, finding.kind),
        effect_text(finding.effect),
        chance_text(finding),
        tuple((key, images[key]) for key in finding.keys[:MAX_SHOWN] if key in images),
    )


def histogram(name: str, distribution: Mapping[str, Any]) -> Histogram:
    """Return the bars of a distribution of ``summary.distributions``."""
    counts = distribution["counts"]
    width = WIDTH / len(counts)
    bars = []
    for position, count in enumerate(counts):
        height = HEIGHT * count / max(counts)
        bars.append((round(position * width, 2), round(HEIGHT - height, 2), round(height, 2)))
    low, high, median = (f"{distribution[limit]:.4g}" for limit in ("low", "high", "median"))
    return Histogram(name.replace("_", " "), low, high, median, tuple(bars), round(width - 1, 2))
