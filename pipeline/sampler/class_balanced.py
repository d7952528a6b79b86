"""Class-balanced and weighted epochs: which image of which class stands at a place of an epoch.

An epoch keeps its length. Every class has its quota of it, to the image; which of the class's images fill the quota
follows from laps: a class goes through all of its images, in an order keyed by the lap, before it shows one again,
and goes on in the next epoch where it stood. Any place of any epoch is computed directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ..errors import PlanError, nearest
from ..rng import keyed_words
from .permutation import NUM_ROUNDS, mixed, permuted

if TYPE_CHECKING:
    from ..index.index import Index
    from ..plan.sampling import Sampling

LAP_BITS = np.uint64(40)
"""Laps and labels share 64 bits of a key."""


@dataclass(frozen=True)
class Draws:
    """The quotas and images of every class that is drawn."""

    seed: int
    labels: np.ndarray
    """int64, shape (C,), ascending."""
    rows: np.ndarray
    """int64 rows of the index, class by class."""
    starts: np.ndarray
    """int64, shape (C,): where a class begins in ``rows``."""
    sizes: np.ndarray
    """int64, shape (C,): images of a class."""
    bounds: np.ndarray
    """int64, shape (C + 1,): where a class's quota begins among the places of an epoch."""

    @classmethod
    def of(cls, sampling: Sampling, index: Index, rows: np.ndarray, seed: int) -> Self:
        """Share an epoch of the given rows out among their classes.

        Raises:
            PlanError: rows without labels, a class that is not there, or one too light to be drawn at all.
        """
        own = index.table["label"].to_numpy()[rows].astype(np.int64)
        if not len(index.classes) and not (own >= 0).any():
            raise PlanError("sampling: expected images with labels, got none; index a folder per class or a table with "
                            "a label column, or leave sampling out")  # fmt: skip
        if (own < 0).any():
            key = index.table["key"][int(rows[np.flatnonzero(own < 0)[0]])].as_py()
            raise PlanError(f"sampling: expected a label for every image of the view, got {int((own < 0).sum()):,} without "
                            f"(the first is {key!r}); label them and index again, or leave sampling out")  # fmt: skip
        labels, sizes = np.unique(own, return_counts=True)
        names = [index.classes[label] if label < len(index.classes) else str(label) for label in labels]
        shares = _weights_of(sampling, names)
        edges = np.rint(np.cumsum(shares) / shares.sum() * len(rows)).astype(np.int64)
        bounds = np.concatenate([[0], edges])
        for name, share, quota in zip(names, shares, np.diff(bounds), strict=True):
            if quota < 1:
                raise PlanError(f"sampling.weights: expected every class at least once in an epoch of {len(rows):,} images, "
                                f"got {share:g} for {name!r}, too little for one; raise it, or index without the "
                                "class")  # fmt: skip
        starts = np.cumsum(sizes) - sizes
        return cls(seed, labels, rows[np.argsort(own, kind="stable")], starts, sizes, bounds)

    def rows_at(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Say which rows of the index stand at places of an epoch, class by class; the caller shuffles."""
        number = np.searchsorted(self.bounds, places, side="right") - 1
        quotas = self.bounds[number + 1] - self.bounds[number]
        drawn_before = epoch * quotas + places - self.bounds[number]
        laps, places_in_lap = np.divmod(drawn_before, self.sizes[number])
        words = (self.labels[number].astype(np.uint64) << LAP_BITS) | laps.astype(np.uint64)
        base = keyed_words("draws", self.seed, 0, "", NUM_ROUNDS)
        keys = mixed(base[:, None], words)
        found = permuted(places_in_lap, self.sizes[number].astype(np.uint64), keys)
        return np.asarray(self.rows[self.starts[number] + found])


def _weights_of(sampling: Sampling, names: list[str]) -> np.ndarray:
    """Return the weight of each class.

    Raises:
        PlanError: a weight for a class that has no image in the view.
    """
    given = sampling.weights or {}
    for name in given:
        if name not in names:
            hint = nearest(name, names) or f"classes with images here are {', '.join(names[:10])}"
            raise PlanError(f"sampling.weights: expected classes of the view, got {name!r}; {hint}")
    return np.array([given.get(name, 1.0) for name in names], dtype=np.float64)
