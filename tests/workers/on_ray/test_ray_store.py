"""A small object store: batches that hardly fit slow a feed and lose nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from clusters import ray_cluster
from lightwell.pipeline.dataset.indexing import build_index
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.plan import Plan
from lightwell.pipeline.view import View
from lightwell.testing import facts_of, facts_of_feed
from lightwell.workers.cluster import connected
from lightwell.workers.on_ray.engine import RayEngine
from pictures import make_folder


@pytest.mark.fault("Ray: an object store that is nearly full")
@pytest.mark.ray
def test_a_store_that_is_nearly_full_slows_and_loses_nothing(tmp_path: Path) -> None:
    """Batches of 19 MB, of which the store holds four, while the consumer keeps all of them."""
    build_index(make_folder(tmp_path / "photos", num_images=24), fractions={"test": 1.0}).save(
        tmp_path / "index.parquet"
    )
    augment = [{"RandomResizedCrop": {"size": [900, 900]}}]
    big = Plan.model_validate({"index": tmp_path / "index.parquet", "augment": augment, "batch": {"size": 8}})
    view = View(shuffle=True, augment=True, num_epochs=4)
    expected = facts_of_feed(LocalEngine(num_threads=1).feed(big, view))
    assert len(expected) == 12
    with (
        ray_cluster(1, store_bytes=80 << 20) as small,
        connected(small.address),
        RayEngine(num_workers=1).feed(big, view) as feed,
    ):
        batches = []
        for batch in feed:
            batches.append(batch)
            time.sleep(0.2)
    assert [facts_of(batch) for batch in batches] == expected
