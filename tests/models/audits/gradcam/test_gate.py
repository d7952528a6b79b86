"""``--fail-on`` with a severity."""

from __future__ import annotations

from typing import Any

import pytest
from lightwell.models.audits.gradcam.gate import Gate, SeverityGate, parse_gate
from lightwell.pipeline.errors import RequestError

FINDINGS: dict[str, Any] = {
    "findings": [
        {"id": f"region-{severity}", "severity": severity, "sentence": f"A {severity} one."}
        for severity in ("medium", "low", "low", "note")
    ]
}


@pytest.mark.parametrize(
    ("severity", "message"),
    [
        ("high", ""),
        ("medium", "medium finding region-medium: A medium one."),
        ("low", "medium finding region-medium and 2 more: A medium one."),
    ],
)
def test_findings_of_a_severity_or_a_higher_one_fail(severity: str, message: str) -> None:
    assert parse_gate(severity).failure(FINDINGS) == message


def test_an_audit_without_findings_passes() -> None:
    gate = parse_gate("low")
    gate.check_measured({"findings": []})
    assert gate.failure({"findings": []}) == ""


def test_a_severity_and_a_condition_are_told_apart() -> None:
    assert parse_gate(" high ") == SeverityGate("high")
    assert parse_gate("accuracy<0.8") == Gate("accuracy", "<", 0.8)


@pytest.mark.parametrize("text", ["hgih", "note", "severe"])
def test_an_unknown_severity_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"expected high, medium, low or, of an audit, METRIC<VALUE, got"):
        parse_gate(text)
