"""Severities come from one table, which covers every kind and rises with the effect."""

from __future__ import annotations

import re
from pathlib import Path

from lightwell.models.audits.dataset.severity import RULES, severity_of
from lightwell.models.audits.findings.finding import DATASET_KINDS, SEVERITIES


def test_every_kind_has_a_rule_and_every_rule_falls_from_high_to_low_down_to_any_effect() -> None:
    assert {kind for kind, _ in RULES} == set(DATASET_KINDS)
    for rule in RULES.values():
        effects = [effect for effect, _ in rule]
        ranks = [SEVERITIES.index(severity) for _, severity in rule]
        assert effects == sorted(effects, reverse=True)
        assert effects[-1] == 0
        assert ranks == sorted(set(ranks))


def test_an_effect_at_its_threshold_has_the_higher_severity() -> None:
    assert severity_of("leakage", "copies", 0.01) == "high"
    assert severity_of("leakage", "copies", 0.0099) == "medium"
    assert severity_of("class_balance", "ratio", 10) == "medium"


def test_no_check_sets_a_severity_by_itself(root: Path) -> None:
    names = "|".join(SEVERITIES)
    own = [
        f"{path.name}: {match[0]}"
        for path in sorted((root / "models/audits/dataset/checks").glob("*.py"))
        for match in re.finditer(rf'severity\b[^=\n]*=\s*"({names})"', path.read_text())
    ]
    assert own == []
