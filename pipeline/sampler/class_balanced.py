"""Class-balanced and weighted sampling: the image at every index of an epoch.

An epoch keeps its length, and every class an exact quota of it. A class fills its quota with passes over its images:
it uses each of them once, in an order keyed by the pass, before it repeats one, and continues in the next epoch where
it stopped. Every index of every epoch is computed directly.

An image with several labels is an image of each of them, as in class-aware sampling (Shen et al., "Relay backpropagation for
effective learning of deep convolutional neural networks", ECCV 2016), so a class that often accompanies others is seen more
often than its quota. Images with none of the classes keep their share of the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ..errors import PlanError, did_you_mean
from ..rng import random_words
from .permutation import NUM_ROUNDS, permute, splitmix64

if TYPE_CHECKING:
    from ..index.index import Index
    from ..plan.sampling import Sampling

PASS_BITS = np.uint64(40)
"""Bits of a 64-bit key for the number of the pass; the label takes the others."""


@dataclass(frozen=True)
class ClassBalancedSampler:
    """Sampler with a fixed quota per class."""

    seed: int
    labels: np.ndarray
    """int64, shape (C,), ascending."""
    rows: np.ndarray
    """int64 rows of the index, class by class."""
    starts: np.ndarray
    """int64, shape (C,): start of each class in ``rows``."""
    sizes: np.ndarray
    """int64, shape (C,): images per class."""
    bounds: np.ndarray
    """int64, shape (C + 1,): start of each class's quota among the indices of an epoch."""

    @classmethod
    def of(cls, sampling: Sampling, index: Index, rows: np.ndarray, seed: int) -> Self:
        """Divide an epoch of the given rows among their classes.

        Raises:
            PlanError: rows without labels, an unknown class, or a weight too small for a single image per epoch.
        """
        sets = index.is_multi_label
        own, owners = _labels_of_sets(index, rows) if sets else (_labels_of(index, rows), rows)
        labels, sizes = np.unique(own, return_counts=True)
        is_none = labels == len(index.classes) if sets else np.zeros(len(labels), dtype=bool)
        names = [
            index.classes[label] if label < len(index.classes) else str(label) for label in labels[~is_none]
        ]
        shares = np.zeros(len(labels))
        shares[~is_none] = _weights_of(sampling, names)
        shares[is_none] = shares.sum() * sizes[is_none] / max(1, len(rows) - int(sizes[is_none].sum()))
        edges = np.rint(np.cumsum(shares) / shares.sum() * len(rows)).astype(np.int64)
        bounds = np.concatenate([[0], edges])
        for name, share, quota in zip(names, shares, np.diff(bounds), strict=False):
            if quota < 1:
                raise PlanError(f"sampling.weights: expected every class at least once in an epoch of {len(rows):,} images, "
                                f"got {share:g} for {name!r}, too small for one; raise it, or index without the "
                                "class")  # fmt: skip
        starts = np.cumsum(sizes) - sizes
        return cls(seed, labels, owners[np.argsort(own, kind="stable")], starts, sizes, bounds)

    def rows_at(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Return the rows of the index at some indices of an epoch, ordered by class; the caller shuffles."""
        number = np.searchsorted(self.bounds, indices, side="right") - 1
        quotas = self.bounds[number + 1] - self.bounds[number]
        num_before = epoch * quotas + indices - self.bounds[number]
        passes, index_in_pass = np.divmod(num_before, self.sizes[number])
        counters = (self.labels[number].astype(np.uint64) << PASS_BITS) | passes.astype(np.uint64)
        base = random_words("draws", self.seed, 0, "", NUM_ROUNDS)
        keys = splitmix64(base[:, None], counters)
        result = permute(index_in_pass, self.sizes[number].astype(np.uint64), keys)
        return np.asarray(self.rows[self.starts[number] + result])


def _labels_of(index: Index, rows: np.ndarray) -> np.ndarray:
    """Return the label of each row."""
    own = np.asarray(index.table["label"].to_numpy())[rows].astype(np.int64)
    if not len(index.classes) and not (own >= 0).any():
        raise PlanError("sampling: expected images with labels, got none; index a folder per class or a table with "
                        "a label column, or leave sampling out")  # fmt: skip
    _check_labelled(index, rows, own >= 0)
    return np.asarray(own)


def _labels_of_sets(index: Index, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every label of the sets of the rows, and its row; an empty set has one label, the number of classes."""
    sets = index.table["labels"].take(rows).combine_chunks()
    _check_labelled(index, rows, np.asarray(sets.is_valid()))
    counts = np.asarray(sets.value_lengths())
    if not counts.any():
        raise PlanError("sampling: expected images with labels, got empty sets only; leave sampling out")
    labels = np.concatenate([np.asarray(sets.flatten()), np.full((counts == 0).sum(), len(index.classes))])
    return labels.astype(np.int64), np.concatenate([np.repeat(rows, counts), rows[counts == 0]])


def _check_labelled(index: Index, rows: np.ndarray, is_labelled: np.ndarray) -> None:
    if not is_labelled.all():
        key = index.table["key"][int(rows[np.flatnonzero(~is_labelled)[0]])].as_py()
        raise PlanError(f"sampling: expected a label for every image of the view, got {int((~is_labelled).sum()):,} without "
                        f"(the first is {key!r}); label them and index again, or leave sampling out")  # fmt: skip


def _weights_of(sampling: Sampling, names: list[str]) -> np.ndarray:
    """Return the weight of each class.

    Raises:
        PlanError: a weight for a class that has no image in the view.
    """
    given = sampling.weights or {}
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names) or f"classes with images here are {', '.join(names[:10])}"
            raise PlanError(f"sampling.weights: expected classes of the view, got {name!r}; {hint}")
    return np.array([given.get(name, 1.0) for name in names], dtype=np.float64)
