"""Edges that are the same in several images of a class and in few of the others: frames, bars, borders of scans.

A frame may be thinner than a cell of the maps, and its evidence is then spread thinly over all cells at the edges, so it is
looked for in the pixels. That the model uses it is for the interventions to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, Region, finding_id
from ...findings.intervals import wilson
from ...findings.nulls import count_p_values
from ..edges import GRID, NUM_DEPTHS, SIDES
from .regions import MAX_Q, examined_classes, stands_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

TOLERANCE = 12
"""Largest difference of the colours of edges that are the same, of 255: JPEG and resizing change them a little."""
MAX_OWN = 1000
MAX_OTHERS = 4000
"""So many images of a class, and of others, are compared."""
MAX_GROUPS = 3
"""Groups of a class with the same edge on one side, the largest first."""
MIN_COMMON = 0.5
"""Sides form one frame if they have at least this share of their images in common."""


@dataclass(frozen=True)
class _Group:
    """Images of a class with the same edge on one side."""

    side: int
    rows: NDArray[np.intp]
    depth: int
    """Rows of cells, from the edge inwards, that are the same in at least half of the images."""
    num_others: int
    """Images of other classes with this edge."""


def frame_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each frame or edge; empty without edges or with one class."""
    if table.edges is None:
        return []
    rows = np.flatnonzero(table.classes >= 0)
    classes = table.classes[rows]
    generator = table.generator("frames")
    found, sizes, tested = [], [], []
    for number in examined_classes(classes).tolist():
        own, others = (
            np.sort(generator.permutation(rows[chosen])[:limit])
            for chosen, limit in ((classes == number, MAX_OWN), (classes != number, MAX_OTHERS))
        )
        groups = [
            group for side in range(len(SIDES)) for group in _groups(table.edges[:, side], side, own, others)
        ]
        for group in groups:
            count = np.array([[len(group.rows)]])
            p = count_p_values(
                count, np.array([len(own)]), count[0] + group.num_others, len(own) + len(others)
            )
            tested.append(min(1.0, float(p[0, 0]) * len(own)))  # any of them could have been the pattern
        found.append(groups)
        sizes.append((number, len(own), len(others)))
    adjusted, findings, at = q_values(np.array(tested)), [], 0
    for (number, num_own, num_others), groups in zip(sizes, found, strict=True):
        notable = []
        for group in groups:
            counts = np.array([[len(group.rows)], [group.num_others]])
            if adjusted[at] <= MAX_Q and stands_out(counts, num_own, num_others)[0]:
                notable.append((group, Null(group.num_others / num_others, tested[at], float(adjusted[at]))))
            at += 1
        findings += [_finding(table, number, num_own, sides) for sides in _join(notable)]
    return findings


def _groups(
    colours: NDArray[np.uint8], side: int, own: NDArray[np.intp], others: NDArray[np.intp]
) -> list[_Group]:
    """Return the largest groups of a class with the same colours (N, depths, segments, channels) on one side."""
    from scipy.spatial.distance import cdist

    def near(rows: NDArray[np.intp], patterns: NDArray[np.intp], depth: int = 0) -> NDArray[np.bool_]:
        first, second = (colours[each, depth].reshape(len(each), -1) for each in (rows, patterns))
        return np.asarray(cdist(first, second, "chebyshev") <= TOLERANCE)

    alike, found = near(own, own), list[_Group]()
    while len(found) < MAX_GROUPS:
        pattern = int(alike.sum(axis=0).argmax())
        members = alike[:, pattern].copy()
        if members.sum() < 2:
            break
        rows, chosen = own[members], own[[pattern]]
        depth = 1
        while depth < NUM_DEPTHS and near(rows, chosen, depth).mean() >= MIN_COMMON:
            depth += 1
        found.append(_Group(side, rows, depth, int(near(others, chosen).sum())))
        alike[members], alike[:, members] = False, False
    return found


def _join(groups: list[tuple[_Group, Null]]) -> list[list[tuple[_Group, Null]]]:
    """Join sides with mostly the same images, that with the most images first."""
    left, found = sorted(groups, key=lambda each: (-len(each[0].rows), each[0].side)), []
    while left:
        own = set(left[0][0].rows.tolist())
        alike = [
            each
            for each in left
            if len(own & set(each[0].rows.tolist())) >= MIN_COMMON * min(len(own), len(each[0].rows))
        ]
        found.append(alike)
        left = [each for each in left if each not in alike]
    return found


def _finding(table: ImageTable, number: int, num_own: int, sides: list[tuple[_Group, Null]]) -> Finding:
    name, (first, null) = table.name_of(number), sides[0]
    rows, times = np.unique(np.concatenate([group.rows for group, _ in sides]), return_counts=True)
    rows = rows[np.argsort(-times, kind="stable")][: len(first.rows)]
    low, high = wilson(len(rows), num_own) or (None, None)
    weights = np.zeros((GRID, GRID), np.float32)
    for group, _ in sides:
        turned = weights if group.side < 2 else weights.T
        (turned if group.side % 2 == 0 else turned[::-1])[: group.depth] = 1
    names = dict.fromkeys(SIDES[side] for side in sorted(group.side for group, _ in sides))
    where = "all four edges" if len(names) == len(SIDES) else f"the {' and the '.join(names)} edge"
    region = Region.from_weights(where.removeprefix("the "), weights)
    whose = f"images of class {name}" if table.by_label else f"images predicted as {name}"
    others = np.flatnonzero((table.classes >= 0) & (table.classes != number))
    return Finding(
        id=finding_id("frame", name, region),
        kind="frame",
        severity="low",
        class_name=name,
        class_number=number,
        group=None,
        sentence=f"{len(rows):,} of {num_own:,} {whose} have the same pixels along {where}; "
        f"of the other classes' images {100 * (null.expected or 0):.1f} % have them there.",
        effect=Effect(len(rows) / num_own, "share of images", low, high),
        null=null,
        num_images=num_own,
        num_concerned=len(rows),
        keys=table.keys_of(rows),
        other_keys=table.keys_of(table.generator(f"others {number}").permutation(others)[:MAX_KEYS]),
        region=region,
    )
