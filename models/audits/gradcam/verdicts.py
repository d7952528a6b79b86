"""From candidates to findings: severity, sentences about the test, and advice.

========================= ============================================== ========
kind                      condition                                      severity
========================= ============================================== ========
region, cluster           confirmed, drop of at least `LARGE_DROP`       high
region, cluster           confirmed                                      medium
region, cluster           not tested or not testable                     low
region, cluster           refuted, or the maps are not trustworthy       note
frame                     confirmed, as for regions                      high or medium
frame                     not confirmed: the maps say nothing about it   note
confident_error, slice    at least `LARGE_EFFECT`                        medium
confident_error, slice                                                   low
profile, suspected_label                                                 note
leakage                                                                  as found
========================= ============================================== ========
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..findings.finding import SEVERITIES, Advice, Finding, Region, Severity

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERDICT_VERSION = 6
"""Changes with the rules."""
LARGE_DROP = 0.2
"""Mean decrease of the probability when the region is removed, beyond that of the control region."""
LARGE_EFFECT = 0.3
INSIDE = 0.5
"""Weight from which on a cell is inside a region."""
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
    if finding.kind == "frame":
        return "note"
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
    """Return advice about a region, with YAML for the plan that takes the region out of the images."""
    region = finding.region
    if region is None:
        return None
    crop = kept_box(region)
    way = "hide this place in training" if crop is None else "crop it away"
    text = (
        f"Look at the pictures. If they share a mark or frame that is no part of {finding.class_name}, {way} and train again; "
        "or write drop for these images in fixes.csv, run lightwell index --apply and train without them."
    )
    return Advice(text, _dropout_yaml(region) if crop is None else _crop_yaml(crop))


def _crop_yaml(kept: tuple[float, float, float, float]) -> str:
    x0, y0, x1, y1 = kept
    cut = (y0, 1 - x1, 1 - y1, x0)
    cropped, padded = (
        ", ".join(_rounded_up(share) for share in shares)
        for shares in ([-share for share in cut], [_padding(cut[at], cut[(at + 2) % 4]) for at in range(4)])
    )
    return (
        "preprocess:                # before the other transforms; top, right, bottom and left edge\n"
        "  - CropAndPad:\n"
        f"      percent: [{cropped}]\n"
        "      keep_size: false\n"
        "# to put black pixels in its place, so that the rest stays where it is, also:\n"
        "# - CropAndPad:\n"
        f"#     percent: [{padded}]\n"
        "#     keep_size: false\n"
    )


def _rounded_up(share: float) -> str:
    """Format a share, rounded away from 0, because the transform rounds pixels towards 0."""
    return f"{math.copysign(math.ceil(abs(share) * 1e4 - 1e-6) / 1e4, share):g}" if share else "0"


def _padding(share: float, opposite: float) -> float:
    """Return what has to be added to an edge, as a share of the cropped side, to make up for what was cropped from it."""
    return share / (1 - share - opposite)


def _dropout_yaml(region: Region) -> str:
    inside = region.weights >= INSIDE
    height, width = inside.any(axis=1).mean(), inside.any(axis=0).mean()
    return (
        "augment:                   # covers patches of this size at random places, so that no single one is relied on\n"
        "  - CoarseDropout:\n"
        "      num_holes_range: [1, 4]\n"
        f"      hole_height_range: [{height / 2:.3g}, {height:.3g}]\n"
        f"      hole_width_range: [{width / 2:.3g}, {width:.3g}]\n"
        "      fill: random_uniform\n"
    )


def kept_box(region: Region) -> tuple[float, float, float, float] | None:
    """Return x0, y0, x1, y1 in fractions of the image of the largest part without the region; None if too much were lost."""
    inside = region.weights >= INSIDE
    height, width = inside.shape
    free = [
        (
            (bottom - top) * (right - left) / inside.size,
            (left / width, top / height, right / width, bottom / height),
        )
        for top, bottom in combinations(range(height + 1), 2)
        for left, right in _free_runs(np.asarray(~inside[top:bottom].any(axis=0), np.bool_))
    ]
    share, box = max(free, default=(0.0, (0.0, 0.0, 1.0, 1.0)))
    return box if inside.any() and 1 - share <= MAX_CROP else None


def _free_runs(free: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return begin and end of the runs of True."""
    steps = np.flatnonzero(np.diff(np.concatenate(([False], free, [False])).astype(np.int8)))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))
