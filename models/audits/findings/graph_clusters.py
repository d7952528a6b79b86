"""Clusters in a graph of nearest neighbours, with a test of whether there are any.

After SpRAy (Lapuschkin et al., Nature Communications 2019), which looks for clusters of heat maps by the eigenvalues of a
neighbourhood graph. Here they are compared with those of data that have the same variances and no clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_NEIGHBOURS = 10
MAX_CLUSTERS = 6
MAX_ROWS = 2000
"""Larger data are clustered by a random sample of so many rows, which the others join by their nearest neighbour."""
MAX_COMPONENTS = 32
NUM_NULL = 19
"""Data sets of the null."""


@dataclass(frozen=True)
class Clusters:
    """A partition of rows, and how clearly it is one."""

    numbers: NDArray[np.int64]
    """Cluster of each row, from 0."""
    eigenvalue: float
    """Second smallest of the normalised Laplacian: small if the graph almost falls into parts."""
    sample: NDArray[np.float64]
    """Principal components of the rows that were clustered, for `cluster_p_value`."""

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.numbers.max()) + 1


def find_clusters(values: NDArray[np.floating[Any]], generator: np.random.Generator) -> Clusters | None:
    """Cluster rows by the eigenvectors of their neighbourhood graph; None with too few different rows.

    The number of clusters is that with the largest gap between eigenvalues, from 2 on. The rows of the first eigenvectors are
    normalised and clustered by k-means (Ng, Jordan and Weiss, NeurIPS 2001).

    Args:
        values: finite, shape (N, D).
        generator: for the sample and the starts.
    """
    from sklearn.cluster import KMeans

    if len(values) < 4 * NUM_NEIGHBOURS:
        return None
    components = principal_components(values)
    if not components.shape[1]:
        return None
    chosen = np.sort(generator.permutation(len(values))[:MAX_ROWS])
    sample = components[chosen]
    eigenvalues, vectors = graph_spectrum(sample, generator)
    count = count_clusters(eigenvalues)
    rows = vectors[:, :count]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    seed = int(generator.integers(2**31))
    own = KMeans(count, n_init=4, random_state=seed).fit_predict(rows).astype(np.int64)
    numbers = own if len(chosen) == len(values) else own[nearest(sample, components, 1)[:, 0]]
    return Clusters(numbers, float(eigenvalues[1]), sample)


def cluster_p_value(clusters: Clusters, generator: np.random.Generator) -> float:
    """Return how probable so small an eigenvalue is in data without clusters: of one normal distribution.

    It has the same covariance (SigClust, Liu et al., JASA 2008). With `NUM_NULL` data sets, the p-value is that of a further
    value of a normal distribution: Student's t, with the standard deviation widened by ``sqrt(1 + 1 / NUM_NULL)``.
    """
    from scipy.stats import t

    sample = clusters.sample
    spreads = sample.std(axis=0)
    null = []
    for _ in range(NUM_NULL):
        drawn = generator.normal(size=sample.shape)
        uncorrelated, _ = np.linalg.qr(drawn - drawn.mean(axis=0))  # as the components of the sample are
        null.append(graph_spectrum(uncorrelated * np.sqrt(len(sample)) * spreads, generator)[0][1])
    spread = max(float(np.std(null, ddof=1)) * np.sqrt(1 + 1 / NUM_NULL), 1e-12)
    return float(t.cdf((clusters.eigenvalue - np.mean(null)) / spread, NUM_NULL - 1))


def principal_components(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the scores of the principal components that hold 95 % of the variance, at most `MAX_COMPONENTS`."""
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / max(1, len(values) - 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    total = float(variances.sum())
    if not total > 1e-12:
        return np.empty((len(values), 0))
    count = int(np.searchsorted(np.cumsum(variances) / total, 0.95)) + 1
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    return np.asarray(centred @ axes[:, : min(count, MAX_COMPONENTS)])


def nearest(points: NDArray[np.float64], queries: NDArray[np.float64], num: int) -> NDArray[np.int64]:
    """Return the numbers of the nearest points of each query, (Q, num), in one thread."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=num, n_jobs=1).fit(points).kneighbors(queries, return_distance=False)
    return np.asarray(found, np.int64)


def graph_spectrum(
    points: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest eigenvalues of the normalised Laplacian of the neighbourhood graph, and their vectors (N, k)."""
    from scipy.sparse import csr_array, diags_array
    from scipy.sparse.linalg import eigsh

    num = len(points)
    neighbours = nearest(points, points, NUM_NEIGHBOURS + 1)
    rows = np.repeat(np.arange(num), neighbours.shape[1])
    directed = csr_array((np.ones(len(rows)), (rows, neighbours.ravel())), shape=(num, num))
    adjacency = directed.maximum(directed.T)
    scale = diags_array(1 / np.sqrt(np.asarray(adjacency.sum(axis=1)).ravel()))
    start = generator.normal(size=num)
    values, vectors = eigsh(scale @ adjacency @ scale, MAX_CLUSTERS + 1, which="LA", v0=start, tol=1e-6)
    order = np.argsort(-values, kind="stable")
    return np.maximum(1 - values[order], 0), np.asarray(vectors[:, order], np.float64)


def count_clusters(eigenvalues: NDArray[np.float64]) -> int:
    """Return the number of ascending eigenvalues before the largest gap, from 2 on."""
    return int(np.diff(eigenvalues)[1:].argmax()) + 2
