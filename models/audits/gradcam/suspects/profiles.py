"""Classes whose order of regions by evidence departs from that of the others (OSCAR, arXiv 2512.18888)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Effect, Finding, Null, finding_id
from ...findings.nulls import add_one_p_values, class_means, permuted_class_means
from .places import all_places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

MIN_IMAGES = 20
MIN_CLASSES = 3
NUM_PERMUTATIONS = 499
MAX_Q = 0.05
MAX_CORRELATION = 0.5
"""Rank correlation with the other classes below which a profile is of interest."""


def profile_suspects(table: ImageTable) -> list[Finding]:
    """Return a finding for each class whose rank profile of the nine ninths of the image is unlike that of the others."""
    rows = np.flatnonzero(table.has_map)
    numbers, sizes = np.unique(table.classes[rows], return_counts=True)
    numbers = numbers[sizes >= MIN_IMAGES]
    if len(numbers) < MIN_CLASSES:
        return []
    rows = rows[np.isin(table.classes[rows], numbers)]
    labels = np.searchsorted(numbers, table.classes[rows])
    ninths = [place for place in all_places(*table.shares.shape[1:]) if place.name.endswith("ninth")]
    values = (
        table.shares[rows].reshape(len(rows), -1) @ np.stack([place.weights.ravel() for place in ninths]).T
    )
    means = class_means(values, labels, len(numbers))
    correlations = profile_correlations(means)
    if not (correlations <= MAX_CORRELATION).any():
        return []
    chunks = permuted_class_means(values, labels, len(numbers), NUM_PERMUTATIONS, table.generator("profiles"))
    null = np.concatenate([np.stack([profile_correlations(each) for each in chunk]) for chunk in chunks])
    p_values = add_one_p_values(-correlations, -null)
    adjusted = q_values(p_values)
    found = []
    for place in np.flatnonzero((adjusted <= MAX_Q) & (correlations <= MAX_CORRELATION)).tolist():
        name, own = table.name_of(int(numbers[place])), labels == place
        excess = means[place] - np.delete(means, place, axis=0).mean(axis=0)
        most = int(excess.argmax())
        strongest = rows[own][np.argsort(-values[own, most], kind="stable")]
        found.append(
            Finding(
                id=finding_id("profile", name),
                kind="profile",
                severity="note",
                class_name=name,
                class_number=int(numbers[place]),
                group=None,
                sentence=f"Class {name} has its evidence in another order of regions than the other classes (rank "
                f"correlation {correlations[place]:.2f}); most notably {100 * means[place, most]:.0f} % of it in the "
                f"{ninths[most].name}, elsewhere {100 * (means[place, most] - excess[most]):.0f} %.",
                effect=Effect(float(correlations[place]), "rank correlation"),
                null=Null(float(np.median(null[:, place])), float(p_values[place]), float(adjusted[place])),
                num_images=int(own.sum()),
                num_concerned=int(own.sum()),
                keys=table.keys_of(strongest[:MAX_KEYS]),
            )
        )
    return found


def profile_correlations(means: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return Spearman's rank correlation of each row (C, S) with the mean of the other rows."""
    from scipy.stats import rankdata

    others = (means.sum(axis=0) - means) / (len(means) - 1)
    own, common = rankdata(means, axis=1), rankdata(others, axis=1)
    own, common = own - own.mean(axis=1, keepdims=True), common - common.mean(axis=1, keepdims=True)
    norms = np.sqrt((own**2).sum(axis=1) * (common**2).sum(axis=1))
    return np.asarray((own * common).sum(axis=1) / np.where(norms > 0, norms, np.inf))
