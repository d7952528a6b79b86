"""A small object store: batches that hardly fit, or for which no room is left, slow a feed and lose nothing."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
import ray
from clusters import ray_cluster
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_batch, digest_feed
from lightwell.workers.ray.cluster import connected
from lightwell.workers.ray.engine import RayEngine
from pictures import make_folder
from ray._private.internal_api import memory_summary

VIEW = View(shuffle=True, augment=True, num_epochs=4)
STORE_BYTES = 80 << 20


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Batches of 19 MB, of which the store holds four."""
    folder = tmp_path_factory.mktemp("store")
    build_index(make_folder(folder / "photos", num_images=24), fractions={"test": 1.0}).save(
        folder / "index.parquet"
    )
    augment = [{"RandomResizedCrop": {"size": [900, 900]}}]
    return Plan.model_validate({"index": folder / "index.parquet", "augment": augment, "batch": {"size": 8}})


@pytest.mark.fault("Ray: an object store that is nearly full")
@pytest.mark.ray
def test_a_store_that_is_nearly_full_slows_and_loses_nothing(big: Plan) -> None:
    """The consumer keeps all batches."""
    expected = digest_feed(LocalEngine(num_threads=1).feed(big, VIEW))
    assert len(expected) == 12
    with (
        ray_cluster(1, store_bytes=STORE_BYTES) as small,
        connected(small.address),
        RayEngine(num_workers=1).feed(big, VIEW) as feed,
    ):
        batches = []
        for batch in feed:
            batches.append(batch)
            time.sleep(0.2)
    assert [digest_batch(batch) for batch in batches] == expected


@pytest.mark.fault("Ray: an object store that others have filled")
@pytest.mark.ray
@pytest.mark.slow
def test_a_store_that_others_have_filled_costs_time_and_no_batch(big: Plan) -> None:
    """Other objects are in use for the whole run, so that they cannot leave the store, and no batch fits beside them."""
    expected = digest_feed(LocalEngine(num_threads=1).feed(big, VIEW))
    with ray_cluster(1, store_bytes=STORE_BYTES) as small, connected(small.address):
        others = [ray.put(np.full(8 << 20, number, np.uint8)) for number in range(9)]
        held = [ray.get(one) for one in others]
        assert percent_full(small.address) >= 85
        fullest = 0.0
        facts = []
        with RayEngine(num_workers=1).feed(big, VIEW) as feed:
            for batch in feed:
                facts.append(digest_batch(batch))
                fullest = max(fullest, percent_full(small.address))
        assert [int(one[0]) for one in held] == list(range(9))
        assert fullest >= 85
    assert facts == expected


def percent_full(address: str) -> float:
    """How full the object stores of a cluster are; more than 100 where what did not fit lies on disk."""
    told = memory_summary(address=address, stats_only=True)
    return float(re.search(r"([\d.]+)% full", told)[1])
