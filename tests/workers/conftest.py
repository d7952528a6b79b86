"""Clusters that several modules of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster, ray_cluster
from lightwell.workers.cluster import connected


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with two CPUs each, to which this process is connected."""
    with ray_cluster(2, 2) as found, connected(found.address):
        yield found
