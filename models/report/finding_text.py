"""Kinds and numbers of findings as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..audits.findings.finding import Effect, Finding

KIND_NAMES = {
    "region": "Evidence in one place",
    "cluster": "Group of images with other evidence",
    "frame": "Same edges in many images",
    "profile": "Unusual places of evidence",
    "slice": "Group of images with more errors",
    "confident_error": "Confident errors",
    "suspected_label": "Suspected wrong labels",
    "unreadable": "Files that cannot be read",
    "odd_file": "Odd files",
    "quality": "Image quality",
    "exact_duplicate": "Copies",
    "near_duplicate": "Near duplicates",
    "leakage": "Leakage between splits",
    "class_balance": "Class balance",
    "drift": "Differences between splits",
    "outlier": "Outliers",
    "coverage": "Coverage",
    "predictive_property": "Properties that predict the class",
    "sample_order": "Order of the images",
    "plan_effect": "What the plan does",
    "preprocessing": "Preprocessing",
    "domain_gap": "Distance to the pretraining data",
    "learning_curve": "More images",
}


def number_text(value: float, unit: str) -> str:
    """Format a number: shares and rates in percent, others to three digits with their unit."""
    if "share" in unit or "rate" in unit:
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if "probability" in unit else f"{value:.3g}"


def effect_text(effect: Effect) -> str:
    """Format a number with its interval: ``21.1 % (14.9 to 28.9 %)``."""
    value = number_text(effect.value, effect.unit)
    if effect.low is None or effect.high is None:
        return value
    low, high = (number_text(limit, effect.unit) for limit in (effect.low, effect.high))
    return f"{value} ({low.removesuffix(' %')} to {high})"


def chance_text(finding: Finding) -> str:
    """Format what chance alone would give."""
    null = finding.null
    parts = [] if null.expected is None else [number_text(null.expected, finding.effect.unit)]
    parts += [
        f"{name} {'< 0.001' if value < 0.001 else f'= {value:.2g}'}"
        for name, value in (("p", null.p), ("q", null.q))
        if value is not None
    ]
    return ", ".join(parts)
