"""All checks of a dataset audit, in the order in which their fixes take precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...findings.finding import SEVERITIES
from .class_balance import find_class_balance
from .confusing_steps import find_confusing_steps
from .coverage import find_coverage
from .domain_gap import DomainGap, find_domain_gap
from .drift import find_drift
from .duplicate_groups import without_copies
from .exact_duplicates import exact_groups, find_exact_duplicates, fix_exact_duplicates
from .leakage import find_leakage, find_leaks
from .learning_curve import find_learning_curve, measure_curve
from .near_duplicates import find_near_duplicates, fix_near_duplicates, near_groups
from .odd_files import find_odd_files
from .outliers import find_outliers
from .plan_effects import find_plan_effects
from .predictive_properties import find_predictive_properties
from .preprocessing import find_preprocessing
from .quality import find_quality
from .sample_order import find_sample_order
from .split_repair import fix_leakage
from .suspected_labels import find_suspected_labels, fix_suspected_labels, suspected_rows
from .unreadable import find_unreadable, fix_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from .....pipeline.plan.plan import Plan
    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable
    from ..effects.changed_features import ChangingStep
    from .fixes import FixRow

SIMPLE_CHECKS = (
    find_unreadable,
    find_odd_files,
    find_quality,
    find_class_balance,
    find_drift,
    find_outliers,
    find_coverage,
    find_sample_order,
    find_predictive_properties,
)
"""Checks that need the table only."""
CHECKS_VERSION = 7
"""To be increased when a check finds something else than before."""


def run_checks(
    table: DatasetTable,
    plan: Plan | None = None,
    effects: pa.Table | None = None,
    changes: Sequence[tuple[ChangingStep, pa.Table]] = (),
    gap: DomainGap | None = None,
) -> tuple[list[Finding], list[FixRow]]:
    """Return the findings, the most severe first, and the fix list with at most one row per image.

    Args:
        table: of the dataset.
        plan: of the job.
        effects: what its transforms do to images: records of the stage ``plan_effects``.
        changes: steps of the plan that flip or change colors, with the features of images after them.
        gap: between the images and those that the network was trained on.
    """
    exact, near = exact_groups(table), near_groups(table)
    leaks = find_leaks(table, exact=exact, near=near)
    found = [finding for check in SIMPLE_CHECKS for finding in check(table)]
    found += find_exact_duplicates(table, exact)
    others = without_copies(table, near, exact)
    found += find_near_duplicates(table, others)
    found += find_leakage(table, leaks)
    suspected = suspected_rows(table)
    found += find_suspected_labels(table, suspected)
    found += find_learning_curve(table, measure_curve(table))
    found += find_domain_gap(table, gap)
    found += find_preprocessing(table, plan)
    if plan is not None:
        found += find_plan_effects(table, plan, effects)
        found += find_confusing_steps(table, plan, changes)
    fixes: dict[str, FixRow] = {}
    for rows in (
        fix_unreadable(table),
        fix_leakage(table, leaks),
        fix_exact_duplicates(table, exact),
        fix_near_duplicates(table, others),
        fix_suspected_labels(table, suspected),
    ):
        for row in rows:
            fixes.setdefault(row.key, row)
    position = {str(key): number for number, key in enumerate(table.keys)}
    ordered = sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    return ordered, sorted(fixes.values(), key=lambda row: position[row.key])
