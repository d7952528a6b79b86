"""Table of injected faults: what tests do to a run, how often, and what was lost.

A test that breaks something carries ``@pytest.mark.fault("what it does", times=...)``. It asserts that nothing is
lost, and so a line says "nothing" exactly where all its tests have passed. ``make faults`` runs them and prints it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest

PROPERTY = "fault"


def note_fault(item: pytest.Item) -> None:
    """Record the injected fault of a test in its report."""
    for mark in item.iter_markers("fault"):
        (what,) = mark.args
        item.user_properties.append((PROPERTY, (what, mark.kwargs.get("times", 1))))


def table_of(reports: Iterable[tuple[str, pytest.TestReport]]) -> list[str]:
    """Return a table with one line per fault, without skipped tests."""
    times: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    for outcome, report in reports:
        for name, fault in report.user_properties:
            if name == PROPERTY and report.when == "call" and outcome in ("passed", "failed"):
                what, number = fault
                times[what] += number
                failed[what] += number if outcome == "failed" else 0
    if not times:
        return []
    width = max(map(len, times))
    lines = [f"{'what was done':{width}}  times  lost"]
    for what, number in times.items():
        lost = f"something: {failed[what]} of them failed" if failed[what] else "nothing"
        lines.append(f"{what:{width}}  {number:>5}  {lost}")
    return lines
