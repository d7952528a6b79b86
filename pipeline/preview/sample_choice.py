"""Which samples people are shown: over all classes, chosen anew by another seed."""

from __future__ import annotations

import numpy as np

from ..index.index import Index
from ..rng import derive_seed, numpy_generator


def choose_rows(index: Index, rows: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Choose rows, as many of each class as of any other; of more classes than ``num``, evenly spaced ones.

    Args:
        index: whose labels are looked at.
        rows: int64 rows to choose from.
        num: how many.
        seed: another one chooses others.

    Returns:
        At most ``num`` of the rows, by label and then by row.
    """
    labels = index.table["label"].fill_null(-1).to_numpy()[rows]
    generator = numpy_generator(derive_seed("preview", seed, 0, ""))
    shuffled = generator.permutation(len(rows))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, firsts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    taken = np.zeros(len(sizes), np.int64)
    while (left := min(num, len(rows)) - int(taken.sum())) > 0:
        open_classes = np.flatnonzero(taken < sizes)
        if len(open_classes) > left:
            start = int(generator.integers(len(open_classes)))
            spaced = start + np.arange(left) * len(open_classes) // left
            open_classes = open_classes[spaced % len(open_classes)]
        taken[open_classes] += 1
    places = [by_class[first : first + n] for first, n in zip(firsts, taken, strict=True)]
    return np.concatenate([np.sort(rows[some]) for some in places]) if places else rows[:0]
