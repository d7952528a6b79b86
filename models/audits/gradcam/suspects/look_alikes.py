"""Places that look alike in several images of a class, in no other class, and are evidence for it: stamps, logos, frames.

For each class and cell of the target layer: the images of the class whose cell has more evidence for it than that of nearly
all images of other classes. If a mark is the reason, the activations of that cell are nearly the same in all of them; if it is
a part of an object, they vary, and other classes have similar parts. So the similarity of these images to their common mean,
each left out of it, is compared with that of the images of other classes. Activations are centred for each cell and whitened,
because a few directions, such as brightness, would otherwise make all cells similar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.nulls import count_p_values
from .places import Place, joined_place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

MIN_IMAGES = 20
"""Smallest class that is examined, and smallest number of images of other classes."""
MAX_OTHERS = 4000
"""So many images of other classes are compared with."""
OTHERS = 0.01
"""Share of the other classes' images whose cell may have as much evidence for the class, or look as similar."""
MIN_CONCERNED = 4
MIN_SHARE = 0.05
"""Smallest share of the class's images."""
MIN_GAP = 0.35
"""The median image has to be so much more similar to the mean of the others (cosine) than `OTHERS` of the other classes are.

Measured with probes of EfficientNet-lite0: in 20 halves of ImageNet photos in 6 coarse classes no cell reached 0.25; of product
photos in 10 classes, where parts of clothes look alike, 6 of 100 classes had one above 0.3 and none above 0.35."""
MAX_Q = 0.01
MIN_COMMON = 0.5
"""Cells form one region if they have at least this share of their images in common."""
SHRINKAGE = 0.3
"""Added to the variance of each direction before whitening, in units of the mean variance."""


@dataclass(frozen=True)
class _Group:
    """Images of a class that look alike at a cell."""

    rows: NDArray[np.intp]
    """The most similar first; positions in the sample."""
    gap: float
    p: float
    """Probability that so many of the images that look like the group are of the class, if labels were exchangeable."""
    num_others: int
    """Images of other classes that look like the median image."""


def look_alike_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each place that looks alike; empty without cells or with one class."""
    cells = table.cells
    if cells is None:
        return []
    classes = table.classes[cells.rows]
    numbers, sizes = np.unique(classes[classes >= 0], return_counts=True)
    examined = numbers[(sizes >= MIN_IMAGES) & (sizes.sum() - sizes >= MIN_IMAGES)].tolist()
    if not examined:
        return []
    generator = table.generator("look alikes")
    compared: dict[int, tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]] = {}
    for number in examined:
        own = np.flatnonzero(classes == number)
        others = np.flatnonzero((classes >= 0) & (classes != number))
        others = np.sort(generator.permutation(others)[:MAX_OTHERS])
        evidence = cells.evidence[others, number].astype(np.float32)
        compared[number] = own, others, np.quantile(evidence, 1 - OTHERS, axis=0)
    whitening = _whitening(cells.features)
    num_cells = cells.features.shape[1]
    groups: dict[tuple[int, int], _Group] = {}
    p_values = np.full((len(examined), num_cells), np.nan)
    for cell in range(num_cells):
        features = cells.features[:, cell].astype(np.float32)
        vectors = _unit((features - features.mean(axis=0)) @ whitening)
        for place, number in enumerate(examined):
            own, others, thresholds = compared[number]
            chosen = own[cells.evidence[own, number, cell] > thresholds[cell]]
            if len(chosen) >= MIN_CONCERNED:
                group = _compare(vectors[chosen], vectors[others], chosen, len(own))
                groups[number, cell], p_values[place, cell] = group, group.p
    adjusted = q_values(p_values)
    found = []
    for place, number in enumerate(examined):
        notable = {
            cell: groups[number, cell]
            for cell in np.flatnonzero(adjusted[place] <= MAX_Q).tolist()
            if groups[number, cell].gap >= MIN_GAP
            and len(groups[number, cell].rows) >= MIN_SHARE * len(compared[number][0])
        }
        for best, region in _join(notable, cells.size):
            group = groups[number, best]
            own, others, _ = compared[number]
            null = Null(group.num_others / len(others), group.p, float(adjusted[place, best]))
            found.append(_finding(table, number, group, region, len(own), null))
    return found


def _whitening(features: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the matrix (D, D) that makes the directions of all cells' features of about equal variance."""
    centred = features - features.mean(axis=0, dtype=np.float32)
    flat = centred.reshape(-1, centred.shape[2]).astype(np.float32)
    values, directions = np.linalg.eigh(flat.T @ flat / len(flat))
    spread = np.maximum(values, 0) + SHRINKAGE * max(float(values.mean()), 1e-12)
    return np.asarray(directions / np.sqrt(spread), np.float32)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9), np.float32)


def _compare(
    own: NDArray[np.float32], others: NDArray[np.float32], chosen: NDArray[np.intp], num_own: int
) -> _Group:
    """Compare the similarity of images to their mean with that of others; all vectors (n, D) have length 1."""
    total = own.sum(axis=0)
    rest = total - own
    similar = (own * rest).sum(axis=1) / np.maximum(np.linalg.norm(rest, axis=1), 1e-9)
    other = others @ (total / max(float(np.linalg.norm(total)), 1e-9))
    median, floor = np.quantile(similar, (0.5, 0.25)).tolist()
    counts = np.array([int((similar >= floor).sum())])
    alike = counts + int((other >= floor).sum())
    p = count_p_values(counts[None], np.array([num_own]), alike, num_own + len(others))
    return _Group(
        chosen[np.argsort(-similar, kind="stable")],
        median - float(np.quantile(other, 1 - OTHERS)),
        float(p.ravel()[0]),
        int((other >= median).sum()),
    )


def _join(groups: dict[int, _Group], size: tuple[int, int]) -> list[tuple[int, Place]]:
    """Join cells with mostly the same images; returns the cell of the largest gap and the region of each."""
    left, found = dict(groups), []
    while left:
        best = max(left, key=lambda cell: (left[cell].gap, -cell))
        own = set(left[best].rows.tolist())
        alike = [
            cell
            for cell, group in left.items()
            if len(own & set(group.rows.tolist())) >= MIN_COMMON * min(len(own), len(group.rows))
        ]
        found.append((best, joined_place(alike, *size)))
        for cell in alike:
            del left[cell]
    return found


def _finding(
    table: ImageTable, number: int, group: _Group, place: Place, num_own: int, null: Null
) -> Finding:
    assert table.cells is not None
    name, num = table.name_of(number), len(group.rows)
    low, high = wilson(num, num_own) or (None, None)
    rows = table.cells.rows[group.rows]
    region = table.region(place.name, _on_grid(place.weights, table.shares.shape[1:3]))
    whose = f"images of class {name}" if table.by_label else f"images predicted as {name}"
    others = np.flatnonzero(table.has_map & (table.classes != number))
    return Finding(
        id=finding_id("cluster", f"{name} cells", region),
        kind="cluster",
        severity="low",
        class_name=name,
        class_number=number,
        group=None,
        sentence=f"{num:,} of {num_own:,} {whose} look alike in the {place.name}, which is evidence for the class; "
        f"of the other classes' images {100 * (null.expected or 0):.1f} % look like that there.",
        effect=Effect(num / num_own, "share of images", low, high),
        null=null,
        num_images=num_own,
        num_concerned=num,
        keys=table.keys_of(rows),
        other_keys=table.keys_of(table.generator(f"others {number}").permutation(others)[:MAX_KEYS]),
        region=region,
    )


def _on_grid(weights: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return weights (h, w) on a grid that may be finer."""
    rows = np.arange(size[0]) * weights.shape[0] // size[0]
    columns = np.arange(size[1]) * weights.shape[1] // size[1]
    return np.asarray(weights[np.ix_(rows, columns)], np.float32)
