"""Figures of the folders that ``defects`` has audited."""

from __future__ import annotations

from statistics import fmean

from benchmarks.benchmark import Work
from benchmarks.defects import read_outcomes, recall


def leaks(work: Work) -> float:
    """Percentage of planted copies of test images that are found."""
    return recall(read_outcomes(work.scratch), "leak")


def duplicates(work: Work) -> float:
    """Percentage of planted copies within the training split that are found."""
    return recall(read_outcomes(work.scratch), "duplicate")


def properties(work: Work) -> float:
    """Percentage of planted properties that are found."""
    return recall(read_outcomes(work.scratch), "property")


def alarms(work: Work) -> float:
    """Percentage of clean twins with a finding that they have no reason for."""
    twins = [each for each in read_outcomes(work.scratch) if each.is_clean]
    return 100 * fmean(bool(each.alarms) for each in twins)
