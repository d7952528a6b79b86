"""Quality gates on findings: with ``--fail-on high`` or ``--fail-on 'accuracy<0.8'``, ``lightwell audit`` exits with code 3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ....pipeline.errors import RequestError, did_you_mean
from ..findings.finding import SEVERITIES

_BY_OUTCOME = ("mean", "right", "wrong", "difference")
METRICS = (
    "num_images",
    "num_labelled",
    "num_unknown_class",
    "num_without_map",
    "num_quarantined",
    "accuracy",
    "top5_accuracy",
    "balanced_accuracy",
    "auroc",
    "calibration.ece",
    *(f"{name}.{of}" for name in ("confidence", "border_mass", "concentration") for of in _BY_OUTCOME),
    "blank_maps.predicted",
    "blank_maps.true",
    "pointing_game.num_images",
    "pointing_game.hit_rate",
    "pointing_game.centre_rate",
    "counts.read",
    "counts.used",
    "counts.replaced",
    "counts.skipped",
)
"""Numbers of findings.json that a gate can test."""
FAILING = SEVERITIES[:-1]
"""Severities that a gate can test, the highest first; a note never fails."""


def parse_gate(text: str) -> Gate | SeverityGate:
    """Parse a severity, or a condition on a number.

    Raises:
        RequestError: the syntax is wrong, or there is no such severity or metric.
    """
    return SeverityGate.parse(text) if re.fullmatch(r"\s*[a-z]+\s*", text) else Gate.parse(text)


@dataclass(frozen=True)
class SeverityGate:
    """Severity from which on a finding fails an audit."""

    severity: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``high``, ``medium`` or ``low``.

        Raises:
            RequestError: there is no such severity.
        """
        name = text.strip()
        if name not in FAILING:
            advice = did_you_mean(name, FAILING) or "write high"
            raise RequestError(
                f"--fail-on: expected {', '.join(FAILING)} or, of an audit, METRIC<VALUE, got {text!r}; {advice}"
            )
        return cls(name)

    def crossing(self, findings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the findings of this severity or a higher one."""
        failing = FAILING[: FAILING.index(self.severity) + 1]
        return [finding for finding in findings if finding["severity"] in failing]

    def failure(self, findings: Mapping[str, Any]) -> str:
        """Return a message if an audit has such findings; an empty string if not."""
        crossing = self.crossing(findings.get("findings", ()))
        if not crossing:
            return ""
        first = crossing[0]
        more = f" and {len(crossing) - 1:,} more" if len(crossing) > 1 else ""
        return f"{first['severity']} finding {first['id']}{more}: {first['sentence']}"

    def check_measured(self, findings: Mapping[str, Any]) -> None:
        """Do nothing: every audit looks for findings."""


@dataclass(frozen=True)
class Gate:
    """Condition on a number of the findings under which an audit fails."""

    metric: str
    """Dotted name in findings.json."""
    sign: str
    """``<`` or ``>``."""
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``METRIC<VALUE`` or ``METRIC>VALUE``.

        Raises:
            RequestError: the syntax is wrong, or there is no such metric.
        """
        found = re.fullmatch(r"\s*([\w.]+)\s*([<>])\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", text, re.IGNORECASE)
        try:
            value = float(found[3]) if found else 0.0
        except ValueError:
            found = None
        if found is None:
            raise RequestError(
                f"--fail-on: expected METRIC<VALUE or METRIC>VALUE, got {text!r}; write 'accuracy<0.8', in quotes"
            )
        if found[1] not in METRICS:
            raise RequestError(
                f"--fail-on: expected a number of the findings, got {found[1]!r}; "
                f"{did_you_mean(found[1], METRICS) or 'known are ' + ', '.join(METRICS)}"
            )
        return cls(found[1], found[2], value)

    def failure(self, findings: Mapping[str, Any]) -> str:
        """Return a message if the findings fail the gate; an empty string if not, or if the metric was not measured."""
        value = self._value(findings)
        if value is None:
            return ""
        is_crossed = value < self.value if self.sign == "<" else value > self.value
        return f"{self.metric} is {value:.4g}: {self.metric} {self.sign} {self.value:g}" if is_crossed else ""

    def check_measured(self, findings: Mapping[str, Any]) -> None:
        """Check that the metric was measured.

        Raises:
            RequestError: it was not measured.
        """
        if self._value(findings) is None:
            raise RequestError(
                f"--fail-on: expected a measured {self.metric}, got none in these findings; "
                "choose a metric that this data has, or remove the gate"
            )

    def _value(self, findings: Mapping[str, Any]) -> Any:
        value: Any = findings
        for name in self.metric.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value
