"""The plan's resources do not affect batches, caches or fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightwell.pipeline.cache.recipe import recipe_of
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_feed

VIEW = View(shuffle=True)
HELD = {"cpus": 2, "gpus": 0.5}


def plan_of(index_path: Path, **content: object) -> Plan:
    policy = [{"Resize": {"height": 16, "width": 16}}]
    return Plan.model_validate(
        {"index": index_path, "preprocess": policy, "batch": {"size": 4}, "seed": 7, **content}
    )


def test_no_fingerprint_cache_or_position_depends_on_resources(index_path: Path, tmp_path: Path) -> None:
    bare, held = (plan_of(index_path, cache=tmp_path, resources=resources) for resources in (None, HELD))
    assert held.fingerprint() == bare.fingerprint()
    assert recipe_of(Program.compile(held)) == recipe_of(Program.compile(bare))
    local = LocalEngine(num_threads=1)
    with local.feed(bare, VIEW) as feed:
        next(iter(feed))
        position = feed.position()
    rest = digest_feed(local.feed(bare, VIEW, position))
    assert digest_feed(local.feed(held, VIEW, position)) == rest


def test_a_plan_with_resources_round_trips_through_yaml(index_path: Path, tmp_path: Path) -> None:
    plan = plan_of(index_path, resources={"gpus": 0.5})
    plan.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml") == plan
    assert str(plan.resources) == "1 CPUs and 0.5 GPUs"


def test_plans_without_resources_keep_their_fingerprint(index_path: Path) -> None:
    dumped = plan_of(index_path).dump()
    assert dumped.pop("resources") is None
    assert Plan.model_validate(dumped) == plan_of(index_path)


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"cpus": -1}, {"gpus": 1.5}, {"cpus": float("nan")}])
def test_impossible_resources_are_rejected(index_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"resources(: expected|\.cpus: expected)"):
        plan_of(index_path, resources=wrong)
