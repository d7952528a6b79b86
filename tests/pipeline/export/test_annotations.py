"""Materialised annotations are read back as they were."""

from __future__ import annotations

from pathlib import Path

from annotated import drawn_scene, write_index
from commands import lightwell
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_feed


def test_batches_of_the_shards_hold_the_annotations_of_their_plan(tmp_path: Path) -> None:
    scenes = [drawn_scene(f"{number}.png", number) for number in range(4)]
    scenes[1].mask = scenes[2].boxes = scenes[2].box_labels = scenes[3].keypoints = None
    path = write_index(tmp_path, scenes)
    Plan(index=path).save(tmp_path / "plan.yaml")
    assert lightwell("materialize", tmp_path / "plan.yaml", "-q", "--out", tmp_path / "out").returncode == 0
    written = tmp_path / "out/index.parquet"
    index = Index.load(written)
    assert (index.box_classes, index.keypoint_names) == (("car", "tree"), ("point",))
    first, second = (
        digest_feed(LocalEngine(num_threads=1).feed(Plan(index=one), View())) for one in (path, written)
    )
    assert first == second
