"""Other ways to find the class whose images carry a mark: a score for each class, and the order in which its images are opened.

- ``class-mean z-score``: the largest difference between the mean image of a class and that of the others, in standard errors.
- ``activation clustering``: Chen et al., "Detecting backdoor attacks on deep neural networks by activation clustering", 2018:
  two clusters of the penultimate features of the images predicted as a class; score by the silhouette, smaller cluster first.
- ``spray``: Lapuschkin et al., "Unmasking Clever Hans predictors", Nature Communications 2019, with k-means instead of a
  person: spectral embedding of the maps of a class, two to five clusters, score by the silhouette, smallest cluster first.
- ``random``: random scores and order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from lightwell.models.audits.calibration.condition import Experiment

MIN_IMAGES = 12
SIDE = 16
NUM_COMPONENTS = 10
NUM_NEIGHBOURS = 10
MAX_CLUSTERS = 5

Ranking = tuple[float, np.ndarray]
"""Score of a class, and its rows, the most suspicious first."""
Baseline = Callable[[Experiment, int], Ranking]


def class_mean(experiment: Experiment, number: int) -> Ranking:
    """Compare the mean image of a class with that of the others."""
    small = np.stack(
        [
            cv2.resize(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for each in experiment.images
        ]
    ).astype(np.float64)
    is_own = experiment.table.labels == number
    own, others = small[is_own], small[~is_own]
    spread = others.std(axis=0) * np.sqrt(1 / len(own) + 1 / len(others))
    z = (own.mean(axis=0) - others.mean(axis=0)) / np.maximum(spread, 1e-6)
    place = np.unravel_index(np.abs(z).argmax(), z.shape)
    towards = np.sign(z[place]) * own[:, place[0], place[1]]
    return float(np.abs(z).max()), np.flatnonzero(is_own)[np.argsort(-towards, kind="stable")]


def activation_clustering(experiment: Experiment, number: int) -> Ranking:
    """Cluster the features of the images predicted as a class."""
    from sklearn.decomposition import PCA

    rows = np.flatnonzero(experiment.table.predictions == number)
    if len(rows) < MIN_IMAGES:
        return 0.0, rows
    features = experiment.table.features[rows]
    components = min(NUM_COMPONENTS, *features.shape)
    features = PCA(components, random_state=0).fit_transform(features)
    return _clusters(features, rows, 2)


def spray(experiment: Experiment, number: int) -> Ranking:
    """Cluster the spectral embedding of the maps of a class."""
    from sklearn.manifold import SpectralEmbedding

    rows = np.flatnonzero((experiment.table.classes == number) & experiment.table.has_map)
    if len(rows) < MIN_IMAGES:
        return 0.0, rows
    maps = experiment.table.shares[rows].reshape(len(rows), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a graph that is not connected is embedded all the same
        embedded = SpectralEmbedding(
            8, affinity="nearest_neighbors", n_neighbors=NUM_NEIGHBOURS, random_state=0
        ).fit_transform(maps)
    return max(
        (_clusters(embedded, rows, count) for count in range(2, MAX_CLUSTERS + 1)), key=lambda each: each[0]
    )


def at_random(experiment: Experiment, number: int) -> Ranking:
    """Score and order at random."""
    generator = np.random.default_rng([experiment.condition.seed, number])
    return float(generator.random()), generator.permutation(np.flatnonzero(experiment.table.labels == number))


def _clusters(values: np.ndarray, rows: np.ndarray, count: int) -> Ranking:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    numbers = KMeans(count, n_init=4, random_state=0).fit_predict(values)
    sizes = np.bincount(numbers, minlength=count)
    if (sizes > 0).sum() < 2:
        return 0.0, rows
    return float(silhouette_score(values, numbers)), rows[np.argsort(sizes[numbers], kind="stable")]


BASELINES: Mapping[str, Baseline] = {
    "class-mean z-score": class_mean,
    "activation clustering": activation_clustering,
    "spray": spray,
    "random": at_random,
}
