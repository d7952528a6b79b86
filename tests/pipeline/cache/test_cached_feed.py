"""A cache changes no batch: not while it fills, not when warm, whatever happened to files, options or shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from cached import AUGMENT, PREPROCESS, TRAINING, hashes_of, plan_for, run, shards_of
from lightwell.pipeline.cache.recipe import recipe_of
from lightwell.pipeline.cache.shard import open_shard
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import OutputError, PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.tools.explain import explain
from lightwell.testing import assert_ranks_add_up, assert_resumes_everywhere, assert_same_batches
from pictures import make_picture, write_picture
from PIL import Image

POLICIES: dict[str, dict[str, Any]] = {
    "resize first": {},
    "normalised": {"preprocess": [*PREPROCESS, A.Normalize()], "augment": AUGMENT[:2]},
    "nothing before": {"preprocess": [], "decode": "exact"},
    "crop before": {"preprocess": [A.CenterCrop(80, 90)], "decode": "exact"},
    "writes into what it is given": {
        "augment": [A.CoarseDropout(p=1.0), A.CenterCrop(48, 48), A.PixelDropout()]
    },
    "decides by pixels": {"augment": [A.CenterCrop(48, 48), A.HEStain(p=1.0)]},
    "own class behind": {"preprocess": [A.Resize(48, 48), "lightwell.pipeline.policy.color:ToHSV"]},
    "several": {"augment": [A.OneOf([A.RandomCrop(48, 48), A.Resize(48, 48)], p=1.0), A.VerticalFlip()]},
    "whole": {"preprocess": [A.SmallestMaxSize(64), A.CenterCrop(48, 48)], "augment": []},
}


@pytest.mark.parametrize("changes", POLICIES.values(), ids=POLICIES)
def test_batches_are_the_same_without_a_cache_while_it_fills_and_when_it_is_warm(
    changes: dict[str, Any], index_path: Path, tmp_path: Path
) -> None:
    bare, none = run(plan_for(index_path, **changes))
    cached = plan_for(index_path, cache=tmp_path / "cache", **changes)
    filling, first = run(cached)
    warm, second = run(cached, num_threads=1, prefetch=1)
    assert none == {}
    assert bare == filling == warm
    assert first == {"hits": 24, "misses": 24, "added": 24, "damaged": 0}
    assert second == {"hits": 48, "misses": 0, "added": 0, "damaged": 0}


@pytest.mark.parametrize("changes", [{}, {"augment": AUGMENT[:2]}], ids=["noise", "crop and flip"])
def test_batches_do_not_depend_on_threads_or_prefetch_while_it_fills(
    changes: dict[str, Any], index_path: Path, tmp_path: Path
) -> None:
    reference, _ = run(plan_for(index_path, **changes))
    for threads, prefetch in ((1, 1), (3, 8)):
        cached = plan_for(index_path, cache=tmp_path / f"cache-{threads}", **changes)
        assert run(cached, num_threads=threads, prefetch=prefetch)[0] == reference


def test_jpegs_give_the_same_batches_filling_warm_and_full(index_path: Path, tmp_path: Path) -> None:
    cache = {"dir": tmp_path / "cache", "format": "jpeg", "quality": 80}
    plan = plan_for(index_path, cache=cache, augment=AUGMENT[:2])
    filling, _ = run(plan)
    warm, counts = run(plan)
    too_small, none = run(
        plan_for(index_path, cache={**cache, "dir": tmp_path / "b", "max_bytes": 1}, augment=AUGMENT[:2])
    )
    assert filling == warm == too_small
    assert (counts["hits"], none["added"]) == (48, 0)
    raw, _ = run(plan_for(index_path, augment=AUGMENT[:2]))
    assert not set(raw) & set(warm)


def test_plans_with_the_same_leading_transforms_share_cached_images(index_path: Path, tmp_path: Path) -> None:
    run(plan_for(index_path, cache=tmp_path))
    others: list[dict[str, Any]] = [{"seed": 9}, {"batch": {"size": 7}}, {"augment": [A.CenterCrop(40, 40)]}]
    for changes in others:
        assert run(plan_for(index_path, cache=tmp_path, **changes))[1]["misses"] == 0
    assert (
        run(plan_for(index_path, cache=tmp_path, evaluate=[A.CenterCrop(40, 40)]), View())[1]["misses"] == 0
    )


def test_other_options_of_leading_transforms_miss(index_path: Path, tmp_path: Path) -> None:
    run(plan_for(index_path, cache=tmp_path))
    others: list[dict[str, Any]] = [
        {"preprocess": [A.SmallestMaxSize(65)]},
        {"preprocess": [A.SmallestMaxSize(64, interpolation=2)]},
        {"decode": "exact"},
        {"cache": {"dir": tmp_path, "format": "jpeg"}},
    ]
    for changes in others:
        plan = plan_for(index_path, **{"cache": tmp_path, **changes})
        assert run(plan)[1]["hits"] == 24  # of its own second epoch


def test_another_version_of_a_decoder_misses(index_path: Path) -> None:
    recipe = recipe_of(Program.compile(plan_for(index_path, cache="unused")))
    versions = dict(recipe.versions)
    assert set(versions) == {
        "albucore",
        "albumentations",
        "nvidia-dali-cuda130",
        "opencv-python-headless",
        "pillow",
    }
    newer = [replace(recipe, versions=tuple({**versions, name: "999"}.items())) for name in versions]
    rule = replace(recipe, color_rule=recipe.color_rule + 1)
    assert len({one.fingerprint() for one in (recipe, rule, *newer)}) == 2 + len(versions)


def indexed_again(index_path: Path) -> None:
    build_index(index_path.parent / "photos", fractions={"train": 1.0}).save(index_path)


def test_a_changed_file_is_processed_again_and_no_other(index_path: Path, tmp_path: Path) -> None:
    plan = plan_for(index_path, cache=tmp_path / "cache")
    run(plan)
    changed = Path(Index.load(index_path).table["uri"][4].as_py())
    write_picture(changed, make_picture(99, 110, 150))
    indexed_again(index_path)
    hashes, counts = run(plan, View(augment=True))
    assert (counts["hits"], counts["misses"]) == (23, 1)
    assert hashes == run(plan_for(index_path), View(augment=True))[0]


@pytest.mark.fault("a cached file changed since indexing")
def test_a_file_that_changed_since_indexing_is_never_served_from_the_cache(
    index_path: Path, tmp_path: Path
) -> None:
    plan, bare = plan_for(index_path, cache=tmp_path / "cache"), plan_for(index_path)
    run(plan)
    table = Index.load(index_path).table
    same_size, gone = (Path(table["uri"][number].as_py()) for number in (4, 9))
    content = bytearray(same_size.read_bytes())
    content[-40] ^= 0x55  # in the last rows of the image
    same_size.write_bytes(content)
    gone.unlink()
    for view in (View(augment=True), TRAINING):
        hashes, counts = run(plan, view)
        assert hashes == run(bare, view)[0]
        assert counts["added"] == 0


def test_masks_and_boxes_follow_cached_pictures(tmp_path: Path) -> None:
    lines = ["path,label,mask,boxes"]
    for number in range(6):
        write_picture(tmp_path / f"{number}.jpg", make_picture(number, 90, 120))
        mask = np.zeros((90, 120), np.uint8)
        mask[10 + number : 30, 20:50] = 3
        Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        boxes = f'"20,{10 + number},50,30"' if number % 2 else ""
        lines.append(f"{number}.jpg,cell,{number}_mask.png,{boxes}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    build_index(tmp_path / "table.csv", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    changes = {"augment": [A.RandomResizedCrop((48, 48)), A.HorizontalFlip(), A.Affine(rotate=(-30, 30))]}
    reference, _ = run(plan_for(tmp_path / "index.parquet", **changes))
    cached = plan_for(tmp_path / "index.parquet", cache=tmp_path / "cache", **changes)
    assert run(cached)[0] == run(cached)[0] == reference


def test_a_bad_file_affects_one_image_and_is_not_cached(index_path: Path, tmp_path: Path) -> None:
    bad = Path(Index.load(index_path).table["uri"][5].as_py())
    bad.write_bytes(bad.read_bytes()[:900])
    indexed_again(index_path)
    table = Index.load(index_path).table
    usable = sum(status == "ok" for status in table["status"].to_pylist())
    plan = plan_for(index_path, cache=tmp_path / "cache")
    bare, _ = run(plan_for(index_path))
    assert run(plan)[0] == run(plan)[0] == bare
    assert usable == 24
    assert sum(len(open_shard(path)) for path in shards_of(tmp_path / "cache")) == 23


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"preprocess": []}, "decode: exact, got RandomResizedCrop after the cache"),
        (
            {"preprocess": [A.CenterCrop(80, 90)], "evaluate": [A.Resize(48, 48)], "augment": []},
            "got Resize after",
        ),
        ({"device": "gpu"}, "expected device: cpu, got gpu"),
    ],
)
def test_a_cache_that_would_change_batches_is_rejected_before_reading(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=told):
        LocalEngine().feed(plan_for(tmp_path / "none.parquet", cache=tmp_path / "cache", **changes), View())
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_plan_rejects_a_cache(index_path: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="expected the backend opencv, got dali"):
        LocalEngine(backend="dali").feed(plan_for(index_path, cache=tmp_path / "cache"), View())
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_created_is_an_error_before_reading(
    index_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cache\.dir: expected a folder that can be written"):
        LocalEngine().feed(plan_for(index_path, cache=tmp_path / "file" / "cache"), View())


def test_only_what_changes_batches_is_part_of_a_plans_fingerprint(index_path: Path, tmp_path: Path) -> None:
    bare = plan_for(index_path).fingerprint()
    assert plan_for(index_path, cache={"dir": tmp_path, "max_bytes": 9}).fingerprint() == bare
    jpegs = [
        plan_for(index_path, cache={"dir": d, "format": "jpeg", "quality": q})
        for d, q in (("a", 80), ("b", 80), ("a", 81))
    ]
    prints = [plan.fingerprint() for plan in jpegs]
    assert prints[0] == prints[1] != prints[2]
    assert bare not in prints


def test_cache_is_given_as_a_folder_or_as_options(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("index: index.parquet\ncache: pixels\n")
    (tmp_path / "long.yaml").write_text("index: index.parquet\ncache:\n  dir: pixels\n  format: raw\n")
    short = Plan.load(tmp_path / "short.yaml")
    assert short.cache is not None
    assert short.cache.dir == tmp_path / "pixels"
    assert short == Plan.load(tmp_path / "long.yaml") == Plan(**short.dump())
    (tmp_path / "wrong.yaml").write_text("index: index.parquet\ncache: {dir: pixels, quality: 80}\n")
    with pytest.raises(PlanError, match="expected format: jpeg beside a quality"):
        Plan.load(tmp_path / "wrong.yaml")


def test_explain_says_where_pixels_are_cached(tmp_path: Path) -> None:
    def notes(**changes: Any) -> dict[str, str]:
        program = Program.compile(plan_for(tmp_path / "i", cache=tmp_path, **changes))
        return {step.name: step.note for step in explain(program, None) if "cached here" in step.note}

    assert list(notes()) == ["SmallestMaxSize"]
    assert f"cached here: raw, in {tmp_path}" in notes()["SmallestMaxSize"]
    own = "lightwell.pipeline.policy.color:ToHSV"
    assert list(notes(preprocess=[A.Resize(64, 64), A.Resize(48, 48), own, A.VerticalFlip(p=1)])) == [
        "Resize"
    ]
    assert list(notes(preprocess=[own], decode="exact")) == ["Decode"]


def test_a_feed_that_is_closed_and_resumed_still_fills_its_cache(index_path: Path, tmp_path: Path) -> None:
    reference, _ = run(plan_for(index_path))
    with LocalEngine(num_threads=2).feed(plan_for(index_path, cache=tmp_path / "cache"), TRAINING) as feed:
        batches = iter(feed)
        first = hashes_of([next(batches)])
        batches.close()  # type: ignore[attr-defined]
        assert first + hashes_of(feed) == reference
        assert feed.cache_counts["added"] == 24
    assert run(plan_for(index_path, cache=tmp_path / "cache"))[1]["misses"] == 0


def test_restored_feeds_and_ranks_through_a_cache_give_the_batches_of_one_without(
    index_path: Path, tmp_path: Path
) -> None:
    plan = plan_for(index_path, cache=tmp_path / "cache", batch={"size": 6})
    engine = LocalEngine(num_threads=2)
    assert_same_batches(
        lambda: engine.feed(plan_for(index_path, batch={"size": 6}), TRAINING),
        lambda: engine.feed(plan, TRAINING),
    )
    assert_resumes_everywhere(engine, plan, TRAINING)
    assert_ranks_add_up(engine, plan, TRAINING, num_ranks=2)
