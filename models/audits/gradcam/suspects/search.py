"""All searches for candidate findings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.finding import MAX_KEYS, Finding
from .clusters import cluster_suspects
from .frames import frame_suspects
from .labels import confident_errors, suspected_labels
from .look_alikes import look_alike_suspects
from .profiles import profile_suspects
from .regions import MIN_IMAGES, examined_classes, region_suspects
from .slices import slice_suspects

if TYPE_CHECKING:
    from .image_table import ImageTable

SEARCH_VERSION = 7
"""Changes with the searches and their thresholds."""
SEARCHES = (
    region_suspects,
    look_alike_suspects,
    frame_suspects,
    cluster_suspects,
    profile_suspects,
    confident_errors,
    suspected_labels,
    slice_suspects,
)
MAX_COMMON = 0.5
"""Of two findings on a class whose regions have more of the smaller one in common, that with more images is kept."""


def find_suspects(table: ImageTable) -> list[Finding]:
    """Return the candidates of all searches, with at most `MAX_KEYS` of their images."""
    return [replace(each, keys=each.keys[:MAX_KEYS]) for each in search_all(table)]


def search_all(table: ImageTable) -> list[Finding]:
    """Return the candidates of all searches, with all of their images; nothing where there is too little data."""
    found = [finding for search in SEARCHES for finding in search(table)]
    kept: list[Finding] = []
    for each in sorted(found, key=lambda one: (-one.num_concerned, one.id)):
        if not any(same_region(each, other) for other in kept):
            kept.append(each)
    return kept


def search_extent(table: ImageTable) -> dict[str, Any]:
    """Return how much was searched for regions, with a sentence if that was nothing, as JSON values."""
    examined = examined_classes(table.classes[table.has_map])
    groups = "labels" if table.by_label else "predictions"
    return {
        "num_images": len(table.keys),
        "num_with_map": int(table.has_map.sum()),
        "classes_from": groups,
        "num_classes_examined": len(examined),
        "note": ""
        if len(examined)
        else f"no region was searched for: that takes a class with {MIN_IMAGES} maps, and as many maps of other classes",
    }


def same_region(first: Finding, second: Finding) -> bool:
    """Return whether two findings are about the same region of one class."""
    if first.region is None or second.region is None or first.class_number != second.class_number:
        return False
    if "frame" in (first.kind, second.kind) and first.kind != second.kind:
        return False
    one, two = first.region.weights, second.region.weights
    common = float(np.minimum(one, two).sum())
    return common > MAX_COMMON * min(float(one.sum()), float(two.sum()))
