"""Clusters that several modules of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster, ray_cluster
from lightwell.workers.ray.cluster import connected


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[Cluster]:
    """Two nodes with two CPUs each."""
    with ray_cluster(2, 2) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(two_nodes: Cluster) -> Iterator[Cluster]:
    """Two nodes, to which this process is connected while the tests of a module run: others have clusters of their own."""
    with connected(two_nodes.address):
        yield two_nodes
