"""Regions in which a class has its evidence much more often than the other classes have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.nulls import count_p_values
from .places import Place, all_places, merge_cells, region_place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

MIN_IMAGES = 10
"""Smallest class that is examined, and smallest number of images of other classes."""
OTHERS = 0.05
"""Share of the other classes' images that may have as much evidence in the region."""
MIN_SHARE = 0.3
"""An image has its evidence in a region if the region has at least this share of it, ..."""
MIN_DENSITY = 3.0
"""... and so many times the share of a uniform map. Single cells need only this; it is their union that is reported."""
MAX_USUAL = 1.0
"""Regions in which the other classes' mean share is more than so many times that of a uniform map are not examined: most
images have evidence there, and classes of different objects differ for good reasons."""
MIN_CONCERNED = 4
MIN_EXCESS = 0.1
"""Smallest difference between the shares of images of the class and of the others."""
MIN_RATIO = 4.0
"""Smallest ratio of these shares."""
MAX_Q = 0.01
MAX_OVERLAP = 0.5
"""Of two regions of a class that share more of their images than this, the one with fewer is left out."""


@dataclass(frozen=True)
class Marks:
    """Images with their evidence in a region, for one class."""

    place: Place
    own: NDArray[np.intp]
    """Rows of the class, the largest share first."""
    others: NDArray[np.intp]
    """Rows of other classes."""
    p: float
    q: float


def region_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each region in which a class differs from the others; empty with fewer than two classes."""
    rows = np.flatnonzero(table.has_map)
    labels = table.classes[rows]
    classes = examined_classes(labels)
    if not len(classes):
        return []
    sizes = np.array([int((labels == number).sum()) for number in classes], np.int64)
    height, width = table.shares.shape[1:]
    places = all_places(height, width)
    first_cell = len(places) - height * width
    floors = [least_share(place) for place in places[:first_cell]] + [MIN_DENSITY / (height * width)] * (
        height * width
    )
    flat = table.shares[rows].reshape(len(rows), -1)
    values = flat @ np.stack([place.weights.ravel() for place in places]).T
    counts = np.stack([count_marked(values, labels == number, np.array(floors)) for number in classes])
    p_values = count_p_values(counts[:, 0], sizes, counts.sum(axis=1), len(rows))
    areas = np.array([place.area for place in places])
    usual = np.stack([values[labels != number].mean(axis=0) / areas for number in classes])
    p_values[usual > MAX_USUAL] = np.nan
    adjusted = q_values(p_values)
    found = []
    for position, number in enumerate(classes.tolist()):
        is_own, num_own = labels == number, int(sizes[position])
        notable = np.flatnonzero(
            (adjusted[position] <= MAX_Q) & stands_out(counts[position], num_own, len(rows) - num_own)
        )
        regions = [([i], places[i]) for i in notable.tolist() if i < first_cell]
        for cells in merge_cells((notable[notable >= first_cell] - first_cell).tolist(), height, width):
            regions.append(((np.flatnonzero(cells) + first_cell).tolist(), region_place(cells)))
        marks = []
        for tests, place in regions:
            own, others = mark_images(flat @ place.weights.ravel(), is_own, least_share(place))
            if stands_out(np.array([[len(own)], [len(others)]]), num_own, len(rows) - num_own)[0]:
                best = tests[int(np.argmin(p_values[position, tests]))]
                marks.append(Marks(place, own, others, p_values[position, best], adjusted[position, best]))
        found += [_finding(table, number, rows, mark, num_own) for mark in leave_out_overlapping(marks)]
    return found


def examined_classes(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes with enough images, and enough images of other classes to compare with."""
    classes, sizes = np.unique(labels, return_counts=True)
    return np.asarray(classes[(sizes >= MIN_IMAGES) & (len(labels) - sizes >= MIN_IMAGES)], np.int64)


def least_share(place: Place) -> float:
    """Return the share of its evidence from which on an image has it in a place."""
    return max(MIN_SHARE, min(MIN_DENSITY * place.area, (1 + place.area) / 2))


def count_marked(
    values: NDArray[np.floating[Any]], is_own: NDArray[np.bool_], floors: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count the images above a threshold in each column of values (N, S): those of the class, and of the others; (2, S).

    The threshold is the floor, or the value that `OTHERS` of the other classes' images exceed, if that is higher.
    """
    own, others = values[is_own], values[~is_own]
    position = len(others) - 1 - int(OTHERS * len(others))
    thresholds = np.maximum(floors, np.partition(others, position, axis=0)[position])
    return np.stack([(own > thresholds).sum(axis=0), (others > thresholds).sum(axis=0)])


def mark_images(
    values: NDArray[np.floating[Any]], is_own: NDArray[np.bool_], floor: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the images that `count_marked` counts: those of the class, the largest value first, and those of the others."""
    own, others = np.flatnonzero(is_own), np.flatnonzero(~is_own)
    position = len(others) - 1 - int(OTHERS * len(others))
    threshold = max(floor, float(np.partition(values[others], position)[position]))
    above = own[values[own] > threshold]
    return above[np.argsort(-values[above], kind="stable")], others[values[others] > threshold]


def stands_out(counts: NDArray[np.int64], num_own: int, num_others: int) -> NDArray[np.bool_]:
    """Return whether differences of counts (2, S) are large enough to be of interest, however significant they are."""
    own, others = counts[0] / num_own, counts[1] / num_others
    return np.asarray(
        (counts[0] >= MIN_CONCERNED) & (own - others >= MIN_EXCESS) & (own >= MIN_RATIO * others), np.bool_
    )


def leave_out_overlapping(marks: list[Marks]) -> list[Marks]:
    """Keep the region with the most images, then others that mark mostly different images; of equals the smallest."""
    kept: list[Marks] = []
    for mark in sorted(marks, key=lambda each: (-len(each.own), each.place.area)):
        own = set(mark.own.tolist())
        if all(len(own & set(other.own.tolist())) <= MAX_OVERLAP * len(own) for other in kept):
            kept.append(mark)
    return kept


def _finding(table: ImageTable, number: int, rows: NDArray[np.intp], mark: Marks, num_own: int) -> Finding:
    name, place = table.name_of(number), mark.place
    num_others = len(rows) - num_own
    share, share_others = len(mark.own) / num_own, len(mark.others) / num_others
    low, high = wilson(len(mark.own), num_own) or (None, None)
    region = table.region(place.name, place.weights)
    whose = f"the images of class {name}" if table.by_label else f"the images predicted as {name}"
    others = np.setdiff1d(np.flatnonzero(table.has_map & (table.classes != number)), rows[mark.others])
    return Finding(
        id=finding_id("region", name, region),
        kind="region",
        severity="low",
        class_name=name,
        class_number=number,
        group=None,
        sentence=f"In {100 * share:.0f} % of {whose} ({len(mark.own):,} of {num_own:,}) the evidence lies in the {place.name}; "
        f"in other classes in {100 * share_others:.1f} %.",
        effect=Effect(share, "share of images", low, high),
        null=Null((len(mark.own) + len(mark.others)) / len(rows), mark.p, mark.q),
        num_images=num_own,
        num_concerned=len(mark.own),
        keys=table.keys_of(rows[mark.own]),
        other_keys=table.keys_of(table.generator(f"others {number}").permutation(others)[:MAX_KEYS]),
        region=region,
    )
