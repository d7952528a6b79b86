"""From candidates to findings: severity, sentences about the test, and advice.

========================= ============================================== ========
kind                      condition                                      severity
========================= ============================================== ========
region, cluster           confirmed, drop of at least `LARGE_DROP`       high
region, cluster           confirmed                                      medium
region, cluster           not tested or not testable                     low
region, cluster           refuted, or the maps are not trustworthy       note
confident_error, slice    at least `LARGE_EFFECT`                        medium
confident_error, slice                                                   low
profile, suspected_label                                                 note
leakage                                                                  as found
========================= ============================================== ========
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..findings.finding import SEVERITIES, Advice, Finding, Region, Severity

VERDICT_VERSION = 3
"""Changes with the rules."""
LARGE_DROP = 0.2
"""Mean decrease of the probability when the region is removed, beyond that of the control region."""
LARGE_EFFECT = 0.3
MAX_CROP = 0.3
"""Largest part of the image that advice crops away."""


def conclude(suspects: Iterable[Finding], *, trusted: bool = True) -> list[Finding]:
    """Return the findings of candidates, the most severe and then the largest first.

    Args:
        suspects: candidates, with what the interventions showed.
        trusted: False if the maps are not trustworthy for this model.
    """
    found = [
        replace(
            each,
            severity=severity_of(each, trusted),
            sentence=" ".join(filter(None, (each.sentence, sentence_of_test(each)))),
            advice=each.advice or advice_of(each),
        )
        for each in suspects
    ]
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), -each.effect.value, each.id))


def severity_of(finding: Finding, trusted: bool) -> Severity:
    """Return the severity by the table of this module."""
    if finding.kind in ("profile", "suspected_label"):
        return "note"
    if finding.kind == "leakage":
        return finding.severity
    if finding.kind in ("confident_error", "slice"):
        return "medium" if finding.effect.value >= LARGE_EFFECT else "low"
    test = finding.confirmation
    if test.status == "confirmed":
        drop = 0.0 if test.drop is None else test.drop.value - (test.control_drop or 0.0)
        return "high" if drop >= LARGE_DROP else "medium"
    return "low" if trusted and test.status != "refuted" else "note"


def sentence_of_test(finding: Finding) -> str:
    """Describe the effect of removing and pasting the region; empty if it was not tested."""
    test = finding.confirmation
    if test.drop is None:
        return ""
    said = f"Without this region the probability of {finding.class_name} changes by {-test.drop.value:+.2f}"
    if test.drop.low is not None and test.drop.high is not None:
        said += f" ({-test.drop.high:+.2f} to {-test.drop.low:+.2f})"
    if test.control_drop is not None:
        said += f", without a control region of the same size by {-test.control_drop:+.2f}"
    if test.paste is not None:
        said += f"; pasted into other images it changes the probability by {test.paste.value:+.2f}"
        if test.paste_control is not None:
            said += f", the control region by {test.paste_control:+.2f}"
        if test.flip_rate is not None:
            said += f", and {100 * test.flip_rate.value:.0f} % of the predictions become {finding.class_name}"
    return said + "."


def advice_of(finding: Finding) -> Advice | None:
    """Return advice about a region, with YAML for the plan where a crop removes it."""
    region = finding.region
    if region is None:
        return None
    text = f"Look at the pictures. If they share a mark or frame that is no part of {finding.class_name}, remove it and train again"
    crop = kept_box(region)
    if crop is None:
        return Advice(f"{text}: mask it, or collect images of this class without it.")
    x0, y0, x1, y1 = crop
    yaml = (
        (
            "preprocess:                # before the other transforms\n"
            "  - CropAndPad:\n"
            f"      percent: [{-y0:.3g}, {x1 - 1:.3g}, {y1 - 1:.3g}, {-x0:.3g}]\n"
            "      keep_size: false\n"
        )
        .replace("-0,", "0,")
        .replace("-0]", "0]")
        .replace("[-0", "[0")
    )
    return Advice(f"{text}: mask it, or crop it away.", yaml)


def kept_box(region: Region) -> tuple[float, float, float, float] | None:
    """Return x0, y0, x1, y1 in fractions of the image of the largest part beside a region; None if it lies too far inside."""
    inside = region.weights >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    height, width = inside.shape
    cuts = {
        (0.0, float(rows[-1] + 1) / height, 1.0, 1.0): (rows[-1] + 1) / height,
        (0.0, 0.0, 1.0, float(rows[0]) / height): 1 - rows[0] / height,
        (float(columns[-1] + 1) / width, 0.0, 1.0, 1.0): (columns[-1] + 1) / width,
        (0.0, 0.0, float(columns[0]) / width, 1.0): 1 - columns[0] / width,
    }
    box, lost = min(cuts.items(), key=lambda item: (item[1], item[0]))
    return box if lost <= MAX_CROP else None
