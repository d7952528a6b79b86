"""Severity of the findings of a dataset audit, by kind and size of the effect.

``high``: results are wrong or misleading, as with copies in the test split. ``medium``: training or scores suffer. ``low``: worth
knowing, a few images. ``note``: information only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..findings.finding import DatasetKind, Severity

Rule = Sequence[tuple[float, "Severity"]]
"""Severities with the effect from which on each applies, the largest first; the last applies always."""

RULES: Mapping[tuple[DatasetKind, str], Rule] = {
    ("unreadable", "share of files"): ((0.01, "high"), (0, "medium")),
    ("odd_file", "format"): ((0, "low"),),
    ("odd_file", "turned"): ((0, "note"),),
    ("quality", "share of images"): ((0.05, "medium"), (0, "low")),
    ("exact_duplicate", "labels"): ((0, "high"),),
    ("exact_duplicate", "share of images"): ((0.01, "medium"), (0, "low")),
    ("near_duplicate", "labels"): ((0, "medium"),),
    ("near_duplicate", "share of images"): ((0.01, "medium"), (0, "low")),
    ("leakage", "copies"): ((0.01, "high"), (0, "medium")),
    ("leakage", "groups"): ((0, "medium"),),
    ("class_balance", "ratio"): ((10, "medium"), (0, "low")),
    ("drift", "area from 1/2"): ((0.14, "medium"), (0, "low")),  # half a standard deviation (Cohen 1988)
    ("drift", "difference of shares"): ((0.2, "medium"), (0, "low")),
    ("suspected_label", "share of images"): ((0, "low"),),
    ("outlier", "share of images"): ((0.05, "medium"), (0, "low")),
    ("coverage", "sparse"): ((0.2, "low"), (0, "note")),
    ("coverage", "narrow"): ((0, "low"),),
    ("domain_gap", "distance"): ((0.4, "medium"), (0.25, "low"), (0, "note")),
    ("predictive_property", "trace"): ((0.5, "high"), (0.2, "medium"), (0, "low")),
    ("predictive_property", "content"): ((0.5, "low"), (0, "note")),
    ("sample_order", "correlation"): ((0.3, "medium"), (0, "low")),
    ("sample_order", "labels"): ((0, "low"),),
    ("learning_curve", "helps"): ((0, "low"),),
    ("learning_curve", "hardly helps"): ((0, "note"),),
    ("plan_effect", "failures"): ((0.05, "high"), (0, "medium")),
    ("plan_effect", "share of views"): ((0.2, "medium"), (0, "low")),
    ("plan_effect", "brightness"): ((0, "low"),),
    ("plan_effect", "confusion"): ((0.5, "high"), (0, "medium")),
    ("preprocessing", "share of images"): ((0.2, "low"), (0, "note")),
    ("preprocessing", "sizes"): ((0, "note"),),
    ("preprocessing", "normalization"): ((0, "low"),),
}
"""By kind and aspect of the finding."""


def severity_of(kind: DatasetKind, aspect: str, effect: float = 0.0) -> Severity:
    """Return the severity of a finding.

    Args:
        kind: of the finding.
        aspect: its row of the table.
        effect: in the unit of the aspect.
    """
    rule = RULES[kind, aspect]
    return next((severity for least, severity in rule if effect >= least), rule[-1][1])
