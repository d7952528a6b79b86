"""Regions in which a class has its evidence much more often than the other classes have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, Region, finding_id
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
"""... and so many times the share of a uniform map."""
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
    q: float = 1.0


def region_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each class and region where the class stands out; empty with fewer than two classes."""
    rows = np.flatnonzero(table.has_map)
    classes, sizes = np.unique(table.classes[rows], return_counts=True)
    examined = [
        number
        for number, size in zip(classes.tolist(), sizes.tolist(), strict=True)
        if size >= MIN_IMAGES and len(rows) - size >= MIN_IMAGES
    ]
    if not examined:
        return []
    height, width = table.shares.shape[1:]
    places = all_places(height, width)
    shares, labels = table.shares[rows].reshape(len(rows), -1), table.classes[rows]
    values = shares @ np.stack([place.weights.ravel() for place in places]).T
    counts = np.stack([count_marked(values, labels == number, places) for number in examined])
    p_values = count_p_values(
        counts[:, 0], sizes[np.searchsorted(classes, examined)], counts.sum(axis=1), len(rows)
    )
    adjusted = q_values(p_values)
    found = []
    for position, number in enumerate(examined):
        is_own = labels == number
        notable = np.flatnonzero(
            (adjusted[position] <= MAX_Q)
            & stands_out(counts[position], int(is_own.sum()), len(rows) - int(is_own.sum()))
        )
        if not len(notable):
            continue
        first_cell = len(places) - height * width
        merged = merge_cells([i - first_cell for i in notable.tolist() if i >= first_cell], height, width)
        candidates = [places[i] for i in notable.tolist()]
        candidates += [region_place(cells) for cells in merged if cells.sum() > 1]
        marks = [mark_images(place, shares @ place.weights.ravel(), is_own) for place in candidates]
        best_q = float(adjusted[position, notable].min())
        found += [
            _finding(table, number, rows, mark, int(is_own.sum()), best_q)
            for mark in leave_out_overlapping(marks)
            if stands_out(np.array([[len(mark.own)], [len(mark.others)]]), int(is_own.sum()), int((~is_own).sum()))[0]
        ]
    return found


def least_share(place: Place) -> float:
    """Return the share of its evidence from which on an image has it in a place."""
    return max(MIN_SHARE, min(MIN_DENSITY * place.area, (1 + place.area) / 2))


def threshold_of(values: NDArray[np.floating], place: Place) -> float:
    """Return the share that images have to exceed: the least share, or the quantile of these values of other classes."""
    position = len(values) - 1 - int(OTHERS * len(values))
    return max(least_share(place), float(np.partition(values, position)[position]))


def count_marked(
    values: NDArray[np.floating], is_own: NDArray[np.bool_], places: tuple[Place, ...]
) -> NDArray[np.int64]:
    """Count the images above the threshold of each place: those of the class, and those of the others; (2, S)."""
    own, others = values[is_own], values[~is_own]
    position = len(others) - 1 - int(OTHERS * len(others))
    floors = np.array([least_share(place) for place in places])
    thresholds = np.maximum(floors, np.partition(others, position, axis=0)[position])
    return np.stack([(own > thresholds).sum(axis=0), (others > thresholds).sum(axis=0)])


def stands_out(counts: NDArray[np.int64], num_own: int, num_others: int) -> NDArray[np.bool_]:
    """Return whether differences of counts (2, S) are large enough to be of interest, however significant they are."""
    own, others = counts[0] / num_own, counts[1] / num_others
    return np.asarray(
        (counts[0] >= MIN_CONCERNED) & (own - others >= MIN_EXCESS) & (own >= MIN_RATIO * others), np.bool_
    )


def mark_images(place: Place, values: NDArray[np.floating], is_own: NDArray[np.bool_]) -> Marks:
    """Mark the images of a class, and those of others, that have their evidence in a place."""
    own, others = np.flatnonzero(is_own), np.flatnonzero(~is_own)
    threshold = threshold_of(values[others], place)
    above = own[values[own] > threshold]
    others_above = others[values[others] > threshold]
    p = count_p_values(
        np.array([[len(above)]]), np.array([len(own)]), np.array([len(above) + len(others_above)]), len(values)
    )
    order = above[np.argsort(-values[above], kind="stable")]
    return Marks(place, order, others_above, float(p[0, 0]))


def leave_out_overlapping(marks: list[Marks]) -> list[Marks]:
    """Keep the region with the most images, then others that mark mostly different images; of equals the smallest."""
    kept: list[Marks] = []
    for mark in sorted(marks, key=lambda each: (-len(each.own), each.place.area)):
        own = set(mark.own.tolist())
        if all(len(own & set(other.own.tolist())) <= MAX_OVERLAP * len(own) for other in kept):
            kept.append(mark)
    return kept


def _finding(
    table: ImageTable, number: int, rows: NDArray[np.intp], mark: Marks, num_own: int, q: float
) -> Finding:
    name, place = table.name_of(number), mark.place
    num_others = len(rows) - num_own
    share, share_others = len(mark.own) / num_own, len(mark.others) / num_others
    low, high = wilson(len(mark.own), num_own) or (None, None)
    region = Region.from_weights(place.name, place.weights)
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
        null=Null((len(mark.own) + len(mark.others)) / len(rows), mark.p, q),
        num_images=num_own,
        num_concerned=len(mark.own),
        keys=table.keys_of(rows[mark.own[:MAX_KEYS]]),
        other_keys=table.keys_of(table.generator(f"others {number}").permutation(others)[:MAX_KEYS]),
        region=region,
    )
