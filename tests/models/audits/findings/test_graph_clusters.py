"""Clusters of neighbourhood graphs: planted ones are found, and one normal distribution has none."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.findings import graph_clusters
from lightwell.models.audits.findings.graph_clusters import (
    NUM_NEIGHBOURS,
    cluster_p_value,
    count_clusters,
    find_clusters,
    graph_spectrum,
    principal_components,
)
from lightwell.pipeline.rng import numpy_generator


def blobs(sizes: list[int], distance: float, seed: int = 0) -> np.ndarray:
    generator = numpy_generator(seed)
    return np.concatenate(
        [generator.normal(size=(size, 12)) + distance * np.eye(12)[n] for n, size in enumerate(sizes)]
    )


def test_a_minority_far_from_the_others_is_a_cluster_of_its_own() -> None:
    clusters = find_clusters(blobs([80, 20], 8.0), numpy_generator(1))
    assert clusters is not None
    assert clusters.count == 2
    assert len(set(clusters.numbers[:80])) == len(set(clusters.numbers[80:])) == 1
    assert cluster_p_value(clusters, numpy_generator(2)) < 0.001


def test_p_values_of_data_without_clusters_are_not_small() -> None:
    p_values = []
    for seed in range(20):
        clusters = find_clusters(blobs([60], 0.0, seed), numpy_generator(seed))
        assert clusters is not None
        p_values.append(cluster_p_value(clusters, numpy_generator(seed + 100)))
    assert min(p_values) > 0.005
    assert 0.25 < float(np.mean(p_values)) < 0.75


def test_rows_left_out_of_the_sample_join_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_clusters, "MAX_ROWS", 60)
    clusters = find_clusters(blobs([150, 50], 8.0), numpy_generator(1))
    assert clusters is not None
    assert len(clusters.sample) == 60
    assert len(clusters.numbers) == 200
    assert len(set(clusters.numbers[:150])) == len(set(clusters.numbers[150:])) == 1


def test_the_spectrum_equals_that_of_the_dense_laplacian() -> None:
    points = blobs([30, 20], 3.0)
    found, _ = graph_spectrum(points, numpy_generator(3))
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1)[:, : NUM_NEIGHBOURS + 1]
    adjacency = np.zeros((50, 50))
    np.put_along_axis(adjacency, nearest, 1.0, axis=1)
    adjacency = np.maximum(adjacency, adjacency.T)
    scale = 1 / np.sqrt(adjacency.sum(axis=1))
    dense = np.linalg.eigvalsh(np.eye(50) - scale[:, None] * adjacency * scale)
    np.testing.assert_allclose(found, dense[: len(found)], atol=1e-6)


def test_principal_components_keep_the_distances() -> None:
    points = numpy_generator(4).normal(size=(40, 3)) @ np.diag([3, 2, 1]) + 5
    components = principal_components(points)
    before = np.linalg.norm(points[:, None] - points[None], axis=2)
    after = np.linalg.norm(components[:, None] - components[None], axis=2)
    assert (after <= before + 1e-9).all()
    assert components.var() * components.size >= 0.95 * points.var(axis=0).sum() * len(points)


def test_too_few_or_equal_rows_have_no_clusters() -> None:
    assert find_clusters(blobs([10], 0.0), numpy_generator(0)) is None
    assert find_clusters(np.ones((60, 4)), numpy_generator(0)) is None


def test_clusters_are_counted_up_to_the_largest_gap() -> None:
    assert count_clusters(np.array([0, 0.01, 0.02, 0.5, 0.6])) == 3
    assert count_clusters(np.array([0, 0.1, 0.4, 0.41, 0.42])) == 2
