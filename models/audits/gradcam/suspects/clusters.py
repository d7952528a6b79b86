"""Minority clusters of a class: images that look alike to the model and have their evidence where the others have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, finding_id
from ...findings.graph_clusters import Clusters, cluster_p_value, find_clusters
from ...findings.intervals import bootstrap_difference
from .places import Place, merge_cells, region_place
from .regions import MAX_USUAL, MIN_DENSITY, MIN_SHARE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

MIN_IMAGES = 40
"""Smallest class that is clustered."""
MIN_CLUSTER = 5
MINORITY = (0.02, 0.45)
"""Share of a class's images that a cluster may have."""
MAX_Q = 0.05
MAX_REST = 0.1
"""Largest mean share of evidence that the rest of the class may have in the cluster's region."""


@dataclass(frozen=True)
class _Candidate:
    number: int
    """Class."""
    space: str
    rows: NDArray[np.intp]
    """Of the cluster, the largest share in the region first."""
    rest: NDArray[np.intp]
    place: Place
    clusters: Clusters


def cluster_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each minority cluster, of maps or of evidence features, with a region of its own."""
    usable = table.has_map
    numbers, sizes = np.unique(table.classes[usable], return_counts=True)
    candidates, num_tests = [], 0
    for number in numbers[sizes >= MIN_IMAGES].tolist():
        own = np.flatnonzero(usable & (table.classes == number))
        others = np.flatnonzero(usable & (table.classes != number))
        for space in ("maps", "features"):
            num_tests += 1
            candidates += _candidates(table, number, own, others, space)
    p_values = np.ones(num_tests)
    tests = list(dict.fromkeys((each.number, each.space) for each in candidates))
    for place, (number, space) in enumerate(tests):
        clusters = next(each.clusters for each in candidates if (each.number, each.space) == (number, space))
        p_values[place] = cluster_p_value(clusters, table.generator(f"null {space} {number}"))
    adjusted = q_values(p_values)
    found = []
    for each in candidates:
        test = tests.index((each.number, each.space))
        if adjusted[test] <= MAX_Q:
            found.append(_finding(table, each, Null(None, float(p_values[test]), float(adjusted[test]))))
    return found


def _candidates(
    table: ImageTable, number: int, own: NDArray[np.intp], others: NDArray[np.intp], space: str
) -> list[_Candidate]:
    """Return the clusters of a class in one space whose size and region are of interest."""
    if space == "maps":
        values = np.sqrt(table.shares[own].reshape(len(own), -1))  # Hellinger distance of the shares
    else:
        values = table.evidence_features[own]
        own = own[np.isfinite(values).all(axis=1)]
        values = table.evidence_features[own]
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    clusters = find_clusters(values, table.generator(f"clusters {space} {number}"))
    if clusters is None:
        return []
    found = []
    for cluster in range(clusters.count):
        is_in = clusters.numbers == cluster
        rows, rest = own[is_in], own[~is_in]
        if len(rows) < MIN_CLUSTER or not MINORITY[0] <= len(rows) / len(own) <= MINORITY[1]:
            continue
        place = region_of_its_own(table.shares[rows].mean(axis=0), table.shares[rest].mean(axis=0))
        if place is None:
            continue
        usual = float(share_in(table, others, place).mean()) if len(others) else 0.0
        mean, mean_rest = share_in(table, rows, place).mean(), share_in(table, rest, place).mean()
        if mean >= MIN_SHARE and mean_rest <= MAX_REST and usual <= MAX_USUAL * place.area:
            order = np.argsort(-share_in(table, rows, place), kind="stable")
            found.append(_Candidate(number, space, rows[order], rest, place, clusters))
    return found


def region_of_its_own(mean: NDArray[np.float32], rest: NDArray[np.float32]) -> Place | None:
    """Return the cells in which a mean map (h, w) has much evidence and the rest's has not; of several parts the strongest."""
    height, width = mean.shape
    excess = mean - rest
    cells = (excess >= excess.max() / 3) & (excess > 0) & (mean >= max(2 * float(rest.min()), 1 / mean.size))
    cells &= mean >= MIN_DENSITY / 2 * rest
    parts = merge_cells(np.flatnonzero(cells).tolist(), height, width)
    if not parts:
        return None
    return region_place(max(parts, key=lambda part: float((excess * part).sum())))


def share_in(table: ImageTable, rows: NDArray[np.intp], place: Place) -> NDArray[np.float32]:
    """Return the share of evidence that each of some images has in a place."""
    return np.asarray(table.shares[rows].reshape(len(rows), -1) @ place.weights.ravel())


def _finding(table: ImageTable, each: _Candidate, null: Null) -> Finding:
    name, place = table.name_of(each.number), each.place
    num = len(each.rows) + len(each.rest)
    own, rest = share_in(table, each.rows, place), share_in(table, each.rest, place)
    interval = bootstrap_difference(own, rest, table.generator(f"interval {each.space} {each.number}"))
    low, high = interval or (None, None)
    region = table.region(place.name, place.weights)
    others = np.flatnonzero(table.has_map & (table.classes != each.number))
    elsewhere = (
        f" and {100 * share_in(table, others, place).mean():.0f} % in other classes" if len(others) else ""
    )
    alike = "maps" if each.space == "maps" else "features under the evidence"
    return Finding(
        id=finding_id("cluster", f"{name} {each.space}", region),
        kind="cluster",
        severity="low",
        class_name=name,
        class_number=each.number,
        group=None,
        sentence=f"{len(each.rows):,} of {num:,} images of class {name} form a cluster by their {alike}: "
        f"{100 * own.mean():.0f} % of their evidence lies in the {place.name}, {100 * rest.mean():.0f} % of that of "
        f"the other images{elsewhere}.",
        effect=Effect(float(own.mean() - rest.mean()), "share of evidence", low, high),
        null=null,
        num_images=num,
        num_concerned=len(each.rows),
        keys=table.keys_of(each.rows),
        other_keys=table.keys_of(table.generator(f"others {each.number}").permutation(others)[:MAX_KEYS]),
        region=region,
    )
