"""Comparison of two audits as a page and as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.finding_text import effect_text
from ...report.html import render_page
from ...report.text import percent
from ...report.versions import versions
from ..findings.finding import SEVERITIES

if TYPE_CHECKING:
    from .audit_result import AuditResult
    from .compare import Comparison
    from .paired import Difference

MAX_CLASSES = 100
"""Classes on the page and in the text; all are in diff.json."""


def difference_text(difference: Difference | None) -> str:
    """Format a difference in points: ``+1.8 points (-0.4 to +4.1)``."""
    if difference is None:
        return "not measured"
    value, low, high = (f"{100 * each:+.1f}" for each in (difference.value, difference.low, difference.high))
    return f"{value} points ({low} to {high})"


def p_text(value: float | None) -> str:
    """Format a p-value or q-value."""
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def summary_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the numbers of the whole audits: name, first, second, difference."""
    rows: list[tuple[str, ...]] = [
        ("images", *(f"{num:,}" for num in comparison.num_images), f"{comparison.num_shared:,} shared"),
    ]
    if comparison.unpaired is not None:
        told = difference_text(comparison.unpaired)
        rows.append(("accuracy, all images", *map(percent, comparison.accuracy), told))
    paired = comparison.paired
    if paired is not None:
        told = f"{difference_text(paired)}, McNemar p {p_text(paired.p)}"
        name = f"accuracy, {paired.num_images:,} shared images"
        rows.append((name, percent(paired.first), percent(paired.second), told))
    counts = [
        (*(pair.first for pair in comparison.stayed), *comparison.gone),
        (*(pair.second for pair in comparison.stayed), *comparison.appeared),
    ]
    for severity in SEVERITIES:
        numbers = [sum(each.severity == severity for each in found) for found in counts]
        rows.append((f"findings, {severity}", *map(str, numbers), f"{numbers[1] - numbers[0]:+d}"))
    return rows


def class_rows(comparison: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Return the changes of the classes: name, recall of both, difference, q-value."""
    return [
        (
            change.name,
            percent(change.recall.first),
            percent(change.recall.second),
            difference_text(change.recall),
            p_text(change.q),
        )
        for change in comparison.classes[:MAX_CLASSES]
    ]


def finding_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return the findings: state, severity, sentence, effect; those that appeared first."""
    rows: list[tuple[str, str, str, str]] = [
        (state, finding.severity, finding.sentence, effect_text(finding.effect))
        for state, found in (("appeared", comparison.appeared), ("went", comparison.gone))
        for finding in found
    ]
    for pair in comparison.stayed:
        first, second = pair.first, pair.second
        severity = (
            second.severity if first.severity == second.severity else f"{first.severity} to {second.severity}"
        )
        effects = [effect_text(effect) for effect in (first.effect, second.effect)]
        effect = effects[1] if effects[0] == effects[1] else f"{effects[0]} to {effects[1]}"
        state = "stayed, effect changed" if pair.is_changed else "stayed"
        rows.append((state, severity, second.sentence, effect))
    return rows


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how comparable the two audits are."""
    same = "The same images" if comparison.same_images else "Different indexes"
    found = [f"{same}: {comparison.num_shared:,} images have the same key in both audits."]
    if comparison.num_relabelled:
        counted = "" if comparison.accuracy == (None, None) else "; no difference counts them"
        found.append(f"{comparison.num_relabelled:,} shared images have another label{counted}.")
    for names, what in ((comparison.classes_gone, "first"), (comparison.classes_new, "second")):
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            found.append(f"Only the {what} audit has the classes {', '.join(names[:5])}{more}.")
    return found


def render(comparison: Comparison, first: AuditResult, second: AuditResult) -> str:
    """Return the page, with all names escaped.

    Args:
        comparison: of the two audits.
        first: the first audit.
        second: the second.
    """
    known = first.provenance, second.provenance
    return render_page(
        __package__,
        "diff.html",
        titles=(first.facts["title"], second.facts["title"]),
        provenance=[(name, known[0][name], known[1][name]) for name in known[0]],
        has_predictions=first.right is not None,
        notes=notes(comparison),
        summary=summary_rows(comparison),
        classes=class_rows(comparison),
        num_classes_left_out=max(0, len(comparison.classes) - MAX_CLASSES),
        findings=finding_rows(comparison),
        version=versions()["lightwell"],
    )
