"""HTML page of a dataset audit: a single file without external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .....pipeline.atomic_io import write_text
from ....report.html import page_style, template_environment
from ...gradcam.report.finding_cards import effect_text
from ..summary import normalize_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from ...findings.finding import Finding

MAX_ROWS = 100
"""Classes that the page lists; all are in findings.json."""


def write_report(findings: Mapping[str, Any], found: Sequence[Finding], path: Path) -> None:
    """Write the page of an audit.

    Args:
        findings: the content of findings.json.
        found: the findings, the most severe first.
        path: of the page.

    Raises:
        OutputError: the file cannot be written.
    """
    statistics = findings["normalize"]
    text = (
        template_environment(__package__)
        .get_template("inspect.html")
        .render(
            style=page_style(),
            title=findings["title"],
            facts=findings,
            counts=[
                (name, list(findings[name].items())[:MAX_ROWS]) for name in ("classes", "splits", "formats")
            ],
            found=[(finding, effect_text(finding.effect)) for finding in found],
            normalize=None if statistics is None else normalize_yaml(statistics),
        )
    )
    write_text(path, text)
