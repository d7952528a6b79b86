"""Score an audit of planted marks: found, confirmed, false alarms, images opened before the first marked one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ...explain.perturb.regions import inside_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..findings.finding import Finding, Region
    from .condition import Experiment

PURITY = 0.5
"""Share of a finding's images that carry the mark, for the finding to be about the mark."""
LOCALISATION = 0.5
"""Share of a finding's region that lies on the mark or on a cell beside it."""
KINDS = ("region", "cluster", "frame")
"""Kinds of findings that claim a shortcut at a place."""


@dataclass(frozen=True, slots=True)
class Score:
    """Result of one experiment."""

    relies: bool
    found: bool
    """A finding above a note is about the mark."""
    confirmed: bool
    """Such a finding is confirmed by intervention."""
    localisation: float | None
    """Of the first such finding: share of its region on the mark or on a cell beside it; None for marks without a place."""
    opened: float | None
    """Images opened before the first marked one, in the order of the report; None without marked images."""
    false_alarms: int
    """Findings above a note of a shortcut at a place that are not about the mark."""
    num_classes: int


def score(experiment: Experiment) -> Score:
    """Score an experiment."""
    claims = [each for each in experiment.findings if each.kind in KINDS and each.severity != "note"]
    hits = [each for each in claims if is_about_mark(each, experiment)]
    first = hits[0] if hits else None
    return Score(
        relies=experiment.relies,
        found=bool(hits),
        confirmed=any(each.confirmation.status == "confirmed" for each in hits),
        localisation=None if first is None else _localisation(first, experiment),
        opened=images_to_open([key for each in experiment.findings for key in each.keys], experiment),
        false_alarms=len(claims) - len(hits),
        num_classes=len(experiment.table.names),
    )


def is_about_mark(finding: Finding, experiment: Experiment) -> bool:
    """Return whether a finding names the class of the mark, shows images with it and, if it has a place, lies there."""
    if experiment.mask is None or finding.class_number != experiment.condition.target:
        return False
    marked = set(experiment.table.keys[experiment.is_marked].tolist())
    if np.mean([key in marked for key in finding.keys]) < PURITY:
        return False
    found = _localisation(finding, experiment)
    return found is None or found >= LOCALISATION


def _localisation(finding: Finding, experiment: Experiment) -> float | None:
    mark = experiment.condition.mark
    if mark is None or not mark.has_place or finding.region is None or experiment.mask is None:
        return None
    return share_on_mark(finding.region, experiment.mask)


def share_on_mark(region: Region, mask: NDArray[np.bool_]) -> float:
    """Return the share of a region's cells that contain a pixel of the mark (H, W), or touch such a cell."""
    cells = inside_cells(region.weights)
    height, width = cells.shape
    rows = np.arange(mask.shape[0]) * height // mask.shape[0]
    columns = np.arange(mask.shape[1]) * width // mask.shape[1]
    marked = np.zeros((height, width), np.uint8)
    where = np.nonzero(mask)
    marked[rows[where[0]], columns[where[1]]] = 1
    near = cv2.dilate(marked, np.ones((3, 3), np.uint8)) > 0
    return float((cells & near).sum() / max(1, cells.sum()))


def images_to_open(keys: Sequence[str], experiment: Experiment) -> float | None:
    """Return how many images are opened before the first with the mark: those listed, then the others in random order."""
    marked = set(experiment.table.keys[experiment.is_marked].tolist())
    if not marked:
        return None
    listed = list(dict.fromkeys(keys))
    for number, key in enumerate(listed):
        if key in marked:
            return float(number)
    rest = len(experiment.table.keys) - len(listed)
    return len(listed) + (rest - len(marked)) / (len(marked) + 1)
